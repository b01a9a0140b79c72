//! Which names a manifest may give: those that every file system can hold and nobody can be fooled by.

use std::fmt;

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_LEN: usize = 1_024;
const MAX_COMPONENT_LEN: usize = 255;
const MAX_DEPTH: usize = 32;

/// A name that a manifest may not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name '{name}' {rule}")]
pub struct NameError {
    name: String,
    rule: NameRule,
}

impl NameError {
    pub(crate) fn new(name: &str, rule: NameRule) -> Self {
        // A remote's text goes to terminals and logs: escaped, and cut at 80 characters.
        Self { name: name.chars().flat_map(char::escape_default).take(80).collect(), rule }
    }

    /// The rule that it breaks.
    pub fn rule(&self) -> NameRule {
        self.rule
    }
}

/// What a name must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// Nothing at all.
    Empty,
    /// More than 1,024 bytes.
    Long,
    /// More than 32 components.
    Deep,
    /// A component without a character: a slash at the start, at the end, or two in a row.
    EmptyComponent,
    /// A component of more than 255 bytes.
    LongComponent,
    /// A component that is `.` or `..`.
    Dots,
    /// A component that starts or ends with a space or a dot.
    Edge,
    /// A component that Windows takes for a device, with or without an extension.
    Device,
    /// A character that means something to a file system or a shell: `\ : * ? " < > |`.
    Character(char),
    /// A character that is not shown, or that changes how others are shown.
    Invisible(char),
    /// Not in Unicode's composed form (NFC), so that two names could look alike and differ.
    NotComposed(char),
    /// The same as another name of the manifest, or the same but for upper and lower case.
    Twice,
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Long => write!(f, "is longer than {MAX_NAME_LEN} bytes"),
            Self::Deep => write!(f, "is more than {MAX_DEPTH} levels deep"),
            Self::EmptyComponent => f.write_str("has an empty component"),
            Self::LongComponent => write!(f, "has a component of more than {MAX_COMPONENT_LEN} bytes"),
            Self::Dots => f.write_str("has a component . or .."),
            Self::Edge => f.write_str("has a component that starts or ends with a space or a dot"),
            Self::Device => f.write_str("has a component that is a device on Windows"),
            Self::Character(c) => write!(f, "contains {}", c.escape_default()),
            Self::Invisible(c) => write!(f, "contains the invisible character {}", c.escape_unicode()),
            Self::NotComposed(c) => write!(f, "is not in Unicode's composed form (NFC) at {}", c.escape_unicode()),
            Self::Twice => f.write_str("is there twice, or differs only in upper and lower case"),
        }
    }
}

/// Whether a manifest may give this name: a path of components with `/` between them.
///
/// # Errors
/// When it may not, with the first rule that it breaks; `docs/spec/manifest.md` lists the rules.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match broken_rule(name) {
        Some(rule) => Err(NameError::new(name, rule)),
        None => Ok(()),
    }
}

fn broken_rule(name: &str) -> Option<NameRule> {
    if name.is_empty() {
        return Some(NameRule::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Some(NameRule::Long);
    }
    if name.split('/').count() > MAX_DEPTH {
        return Some(NameRule::Deep);
    }
    name.chars().find_map(character_rule).or_else(|| name.split('/').find_map(component_rule)).or_else(|| {
        let c = crate::nfc::first_not_composed(name)?;
        Some(NameRule::NotComposed(c))
    })
}

fn character_rule(c: char) -> Option<NameRule> {
    match c {
        '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => Some(NameRule::Character(c)),
        // Marks of direction and their isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            Some(NameRule::Invisible(c))
        }
        // No width: soft hyphen, joiners, fillers, variation marks of Mongolian, byte order mark, tags.
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => Some(NameRule::Invisible(c)),
        _ if c.is_control() => Some(NameRule::Invisible(c)),
        _ => None,
    }
}

fn component_rule(component: &str) -> Option<NameRule> {
    let is_edge = |c: char| c == '.' || c.is_whitespace();
    match component {
        "" => Some(NameRule::EmptyComponent),
        "." | ".." => Some(NameRule::Dots),
        _ if component.len() > MAX_COMPONENT_LEN => Some(NameRule::LongComponent),
        _ if component.starts_with(is_edge) || component.ends_with(is_edge) => Some(NameRule::Edge),
        _ if is_device(component) => Some(NameRule::Device),
        _ => None,
    }
}

/// Windows opens the device for `con`, `CON.txt` and `con .txt` alike, and takes superscript digits for digits.
fn is_device(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let is_number =
        |rest: &str| matches!(rest, "¹" | "²" | "³") || (rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit());
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") || numbered.is_some_and(is_number)
}

/// The name as file systems that ignore case see it: names with the same folded form are one file there.
pub fn folded_name(name: &str) -> String {
    // Character by character: the lower case of whole strings depends on where a sigma stands.
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<NameRule>) {
        assert_eq!(check_name(name).err().map(|error| error.rule()), expected, "{}", name.escape_debug());
    }

    #[test]
    fn names_that_may_be_given() {
        let deep = ["d"; 32].join("/");
        let longest =
            [&"x".repeat(255), "/", &"y".repeat(255), "/", &"z".repeat(255), "/", &"w".repeat(256 - 3 - 1)].concat();
        for name in [
            "a",
            "movie.mp4",
            "a/b/c.txt",
            "with space.txt",
            "two..dots",
            "a.b.c",
            "-rf",
            "$HOME",
            "~root",
            "100%",
            "a;b",
            "it's",
            "&",
            "[x]",
            "Ünïcödé.txt",
            "日本語.txt",
            "한국어",
            "বাংলা",
            "العربية",
            "emoji \u{1f600}",
            "console",
            "com",
            "COM10",
            "lpt",
            "nullify.txt",
            "auxiliary",
            "COMX",
            "x.con",
            &deep,
            &longest,
            &"é".repeat(127),
        ] {
            check(name, None);
        }
    }

    #[test]
    fn names_that_may_not_be_given() {
        use NameRule::*;
        let too_deep = ["d"; 33].join("/");
        for (name, rule) in [
            ("", Empty),
            (&"x".repeat(1_025), Long),
            (&too_deep, Deep),
            (&"x".repeat(256), LongComponent),
            (&format!("a/{}", "é".repeat(128)), LongComponent),
            ("/etc/passwd", EmptyComponent),
            ("a//b", EmptyComponent),
            ("a/", EmptyComponent),
            ("/", EmptyComponent),
            (".", Dots),
            ("..", Dots),
            ("../x", Dots),
            ("a/../b", Dots),
            ("a/..", Dots),
            ("a/./b", Dots),
            (".hidden", Edge),
            ("...", Edge),
            ("a/.git/config", Edge),
            ("end.", Edge),
            ("end ", Edge),
            (" start", Edge),
            ("a /b", Edge),
            ("\u{3000}wide", Edge),
            ("nbsp\u{a0}", Edge),
            ("CON", Device),
            ("con", Device),
            ("Con.txt", Device),
            ("a/nul", Device),
            ("PRN.tar.gz", Device),
            ("aux .txt", Device),
            ("COM0", Device),
            ("com1.log", Device),
            ("LPT9", Device),
            ("lpt0.x", Device),
            ("COM¹", Device),
            ("conin$", Device),
            ("CONOUT$", Device),
            ("..\\x", Character('\\')),
            ("C:", Character(':')),
            ("c:/windows", Character(':')),
            ("file:stream", Character(':')),
            ("*", Character('*')),
            ("what?", Character('?')),
            ("\"quoted\"", Character('"')),
            ("<in", Character('<')),
            ("out>", Character('>')),
            ("a|b", Character('|')),
            ("nul\0byte", Invisible('\0')),
            ("line\nbreak", Invisible('\n')),
            ("carriage\r", Invisible('\r')),
            ("tab\t", Invisible('\t')),
            ("esc\u{1b}[31m", Invisible('\u{1b}')),
            ("del\u{7f}", Invisible('\u{7f}')),
            ("c1\u{85}", Invisible('\u{85}')),
            ("soft\u{ad}hyphen", Invisible('\u{ad}')),
            ("ltr\u{200e}", Invisible('\u{200e}')),
            ("gpj.\u{202e}exe", Invisible('\u{202e}')),
            ("isolate\u{2066}", Invisible('\u{2066}')),
            ("arabic mark\u{61c}", Invisible('\u{61c}')),
            ("zero\u{200b}width", Invisible('\u{200b}')),
            ("join\u{200d}er", Invisible('\u{200d}')),
            ("word\u{2060}joiner", Invisible('\u{2060}')),
            ("\u{feff}bom", Invisible('\u{feff}')),
            ("line\u{2028}", Invisible('\u{2028}')),
            ("tag\u{e0041}", Invisible('\u{e0041}')),
            ("cafe\u{301}", NotComposed('e')),
            ("\u{212b}", NotComposed('\u{212b}')),
            ("\u{1112}\u{1161}", NotComposed('\u{1112}')),
        ] {
            check(name, Some(rule));
        }
    }

    #[test]
    fn what_is_shown_is_harmless() {
        let error = check_name("\u{1b}[2J").unwrap_err();
        assert_eq!(error.to_string(), r"the name '\u{1b}[2J' contains the invisible character \u{1b}");
        assert!(check_name(&"x".repeat(9_999)).unwrap_err().to_string().len() < 130);
    }

    #[test]
    fn folding() {
        for (one, other, same) in [
            ("A", "a", true),
            ("ÉTÉ", "été", true),
            ("STRASSE", "straße", true),
            ("ΣΑΣ", "σας", true),
            ("\u{212a}", "k", true),
            ("a", "b", false),
            ("e", "é", false),
        ] {
            assert_eq!(folded_name(one) == folded_name(other), same, "{one} {other}");
        }
    }
}
