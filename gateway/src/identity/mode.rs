//! [`AuthMode`]: the value of `auth.mode`.

use std::fmt;

/// Value of `auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Tokens are ignored: any client may have any free nickname.
    #[default]
    Open,
    /// Every client needs a token.
    Token,
    /// Clients without a token are guests.
    Mixed,
}

impl AuthMode {
    /// Returns the name in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Token => "token",
            Self::Mixed => "mixed",
        }
    }
}

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
