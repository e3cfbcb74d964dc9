//! How often something may happen.

use std::time::Duration;

/// At most so many events in each second.
#[derive(Default)]
pub(super) struct Window {
    second: u32,
    spent: u32,
}

impl Window {
    pub(super) fn allows(&mut self, now: Duration, limit: u32) -> bool {
        let second = now.as_secs() as u32;
        if second != self.second {
            self.second = second;
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= limit
    }
}

/// Tokens that come back with time.
pub(super) struct Bucket {
    tokens: u32,
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(tokens: u32) -> Self {
        Self {
            tokens,
            filled: Duration::ZERO,
        }
    }

    /// Takes a token if there is one. `rate` come back in a second, up to `max`.
    pub(super) fn take(&mut self, now: Duration, rate: u32, max: u32) -> bool {
        let passed = now.saturating_sub(self.filled).as_millis();
        let fresh = passed * u128::from(rate) / 1000;
        if fresh > 0 {
            let tokens = u128::from(self.tokens) + fresh;
            self.tokens = tokens.min(max.into()) as u32;
            self.filled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}
