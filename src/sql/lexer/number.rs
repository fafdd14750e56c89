//! Numbers, parameters, and what begins like them.

use super::{Lexer, NumberKind, StringKind, TokenKind, is_ident_start};

impl Lexer<'_> {
    /// Digits with single `_` between them; true when there was at least one digit.
    fn digits(&mut self, is_digit: impl Fn(u8) -> bool, leading_underscore: bool) -> bool {
        let mut found = false;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(byte), _) if is_digit(byte) => self.at += 1,
                (Some(b'_'), Some(byte)) if (found || leading_underscore) && is_digit(byte) => self.at += 2,
                _ => return found,
            }
            found = true;
        }
    }

    fn decimal_digits(&mut self) -> bool {
        self.digits(|byte| byte.is_ascii_digit(), false)
    }

    /// Takes in letters that are glued to the number; they make it junk.
    fn unless_junk(&mut self, kind: TokenKind) -> TokenKind {
        if self.peek(0).is_some_and(is_ident_start) {
            self.skip_ident();
            return TokenKind::Junk;
        }
        kind
    }

    /// A number that begins with a digit.
    pub(super) fn number(&mut self) -> TokenKind {
        if self.peek(0) == Some(b'0') {
            let is_digit: Option<fn(u8) -> bool> = match self.peek(1) {
                Some(b'x' | b'X') => Some(|byte| byte.is_ascii_hexdigit()),
                Some(b'o' | b'O') => Some(|byte| matches!(byte, b'0'..=b'7')),
                Some(b'b' | b'B') => Some(|byte| matches!(byte, b'0' | b'1')),
                _ => None,
            };
            if let Some(is_digit) = is_digit {
                self.at += 2;
                return if self.digits(is_digit, true) && !self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                    self.unless_junk(TokenKind::Number(NumberKind::Integer))
                } else {
                    self.skip_ident();
                    TokenKind::Junk
                };
            }
        }
        self.decimal_digits();
        let mut kind = NumberKind::Integer;
        if self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.') {
            kind = NumberKind::Decimal;
            self.at += 1;
            self.decimal_digits();
        }
        self.exponent(kind)
    }

    fn exponent(&mut self, mut kind: NumberKind) -> TokenKind {
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                kind = NumberKind::Decimal;
                self.at += 1 + sign;
                self.decimal_digits();
            }
        }
        self.unless_junk(TokenKind::Number(kind))
    }

    /// `.`, `..` or a number like `.5`.
    pub(super) fn dot(&mut self) -> TokenKind {
        self.at += 1;
        match self.peek(0) {
            Some(b'.') => {
                self.at += 1;
                TokenKind::DotDot
            }
            Some(byte) if byte.is_ascii_digit() => {
                self.decimal_digits();
                self.exponent(NumberKind::Decimal)
            }
            _ => TokenKind::Dot,
        }
    }

    /// `$n`, a dollar-quoted string, or a stray `$`.
    pub(super) fn dollar(&mut self) -> TokenKind {
        if self.dollar_string() {
            return TokenKind::String(StringKind::Dollar);
        }
        self.at += 1;
        if !self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            return TokenKind::Other;
        }
        let mut number = 0u32;
        while let Some(byte) = self.peek(0)
            && byte.is_ascii_digit()
        {
            number = number.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
            self.at += 1;
        }
        // PostgreSQL keeps the number in a C int; older versions let a larger one wrap around to another parameter.
        let kind = if number <= i32::MAX as u32 { TokenKind::Param(number) } else { TokenKind::Junk };
        self.unless_junk(kind)
    }
}
