//! Chunk extensions (RFC 9112, section 7.1.1), one byte at a time. Nothing of them is kept.

use super::fields::{is_text, is_token_byte};

/// The position of the reader in the extensions of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkExtension {
    /// In white space that a semicolon has to follow.
    BeforeSemicolon,
    /// After a semicolon, or in white space after it.
    BeforeName,
    Name,
    /// In white space after a name, which a value or a semicolon has to follow.
    AfterName,
    /// After an equals sign, or in white space after it.
    BeforeValue,
    /// In a value that is a token.
    Token,
    Quoted,
    /// After a backslash in a quoted string.
    Escape,
    /// After a quoted string.
    AfterQuoted,
}

impl ChunkExtension {
    /// The place after `byte`; `None` where it may not stand here.
    pub(super) fn next(self, byte: u8) -> Option<Self> {
        let is_blank = matches!(byte, b' ' | b'\t');
        Some(match (self, byte) {
            (Self::BeforeSemicolon | Self::Token | Self::AfterQuoted, _) if is_blank => Self::BeforeSemicolon,
            (Self::Name | Self::AfterName, _) if is_blank => Self::AfterName,
            (Self::BeforeName | Self::BeforeValue, _) if is_blank => self,
            (Self::BeforeSemicolon | Self::Name | Self::AfterName | Self::Token | Self::AfterQuoted, b';') => {
                Self::BeforeName
            }
            (Self::Name | Self::AfterName, b'=') => Self::BeforeValue,
            (Self::BeforeName | Self::Name, _) if is_token_byte(byte) => Self::Name,
            (Self::BeforeValue | Self::Token, _) if is_token_byte(byte) => Self::Token,
            (Self::BeforeValue, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::AfterQuoted,
            (Self::Quoted, b'\\') => Self::Escape,
            (Self::Quoted | Self::Escape, _) if is_text(byte) => Self::Quoted,
            _ => return None,
        })
    }

    /// True where the line may end.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Self::Name | Self::Token | Self::AfterQuoted)
    }
}
