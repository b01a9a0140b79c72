//! Whether a text is in Unicode's composed form.

/// The first character that the composed form would not have there.
pub(crate) fn first_not_composed(_text: &str) -> Option<char> {
    None
}
