//! Names of contents in URLs.

use std::fmt;

/// A content's name: one or more components, each UTF-8, none of which can lead out of a folder.
///
/// Percent signs are decoded once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentPath(Vec<String>);

/// Why a URL's path names no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No name at all.
    #[error("the path is empty")]
    Empty,
    /// More than [`ContentPath::MAX_BYTES`] or [`ContentPath::MAX_COMPONENTS`].
    #[error("the path is longer than {} bytes or {} components", ContentPath::MAX_BYTES, ContentPath::MAX_COMPONENTS)]
    TooLong,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("a '%' in the path is not followed by two hexadecimal digits")]
    Escape,
    /// Bytes that are no UTF-8.
    #[error("the path is not UTF-8")]
    Utf8,
    /// A component that is empty, `.` or `..`, or contains a slash, a backslash or a control character.
    #[error("a component of the path is empty, '.' or '..', or contains a slash, a backslash or a control character")]
    Component,
}

impl ContentPath {
    /// What file systems take (4,096 on Linux), less some room for the root.
    pub const MAX_BYTES: usize = 3_072;
    /// Far more than any tree of files has; a bound on the work for one request.
    pub const MAX_COMPONENTS: usize = 64;

    /// Reads a path as it stands in a URL, without the slash in front.
    ///
    /// # Errors
    /// When it could mean anything but one file beneath one folder.
    pub fn from_url(path: &str) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        // Each byte of the name takes at most three of the URL.
        if path.len() > 3 * Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        // Slashes separate before percent signs are decoded, so that `%2F` cannot make a component of its own.
        let components = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        Self::from_components(components)
    }

    /// The path of these components.
    ///
    /// # Errors
    /// When one of them could mean anything but a name in a folder.
    pub fn from_components(components: Vec<String>) -> Result<Self, PathError> {
        if components.is_empty() {
            return Err(PathError::Empty);
        }
        let bytes: usize = components.iter().map(|component| component.len() + 1).sum();
        if components.len() > Self::MAX_COMPONENTS || bytes > Self::MAX_BYTES {
            return Err(PathError::TooLong);
        }
        let bad = |component: &String| {
            matches!(component.as_str(), "" | "." | "..")
                || component.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'))
        };
        if components.iter().any(bad) {
            return Err(PathError::Component);
        }
        Ok(Self(components))
    }

    /// The components in order.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The path as it stands in a URL, without a slash in front; [`Self::from_url`] reads it back.
    pub fn to_url(&self) -> String {
        let mut url = String::new();
        for (index, component) in self.0.iter().enumerate() {
            if index > 0 {
                url.push('/');
            }
            for byte in component.bytes() {
                match byte {
                    // What RFC 3986 section 2.3 calls unreserved.
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
                    _ => url.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        url
    }
}

impl fmt::Display for ContentPath {
    /// The name, decoded; it contains no control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

fn decode(component: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(component.len());
    let mut rest = component.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| {
                let digit = char::from(byte?).to_digit(16)?;
                u8::try_from(digit).ok()
            };
            let high = digit(rest.next()).ok_or(PathError::Escape)?;
            let low = digit(rest.next()).ok_or(PathError::Escape)?;
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| PathError::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_name_a_content() {
        for (url, components) in [
            ("a.txt", vec!["a.txt"]),
            ("a/b/c", vec!["a", "b", "c"]),
            ("a%20b", vec!["a b"]),
            ("100%25", vec!["100%"]),
            ("%252e%252e", vec!["%2e%2e"]),
            ("caf%C3%A9/x", vec!["café", "x"]),
            ("...", vec!["..."]),
            (".hidden", vec![".hidden"]),
            ("a;b=c", vec!["a;b=c"]),
        ] {
            let path = ContentPath::from_url(url).unwrap();
            assert_eq!(path.components().collect::<Vec<_>>(), components, "{url}");
            assert_eq!(ContentPath::from_url(&path.to_url()).as_ref(), Ok(&path), "{url}");
        }
    }

    #[test]
    fn urls_that_name_none() {
        let long = "a".repeat(ContentPath::MAX_BYTES);
        let deep = vec!["a"; 4_096].join("/");
        for (url, error) in [
            ("", PathError::Empty),
            ("/", PathError::Component),
            ("a//b", PathError::Component),
            ("a/", PathError::Component),
            ("..", PathError::Component),
            ("a/../b", PathError::Component),
            ("%2e%2e/x", PathError::Component),
            ("%2E./x", PathError::Component),
            (".", PathError::Component),
            ("a%2Fb", PathError::Component),
            ("a%5cb", PathError::Component),
            ("a\\b", PathError::Component),
            ("a%00", PathError::Component),
            ("a%0d%0a", PathError::Component),
            ("%c0%ae%c0%ae/x", PathError::Utf8),
            ("%ff", PathError::Utf8),
            ("%", PathError::Escape),
            ("%4", PathError::Escape),
            ("%+1", PathError::Escape),
            ("%zz", PathError::Escape),
            (&long, PathError::TooLong),
            (&deep, PathError::TooLong),
        ] {
            assert_eq!(ContentPath::from_url(url), Err(error), "{}", &url[..url.len().min(80)]);
        }
    }
}
