//! How often something may happen.

use std::time::Duration;

/// At most so many events in each second.
#[derive(Clone, Default)]
pub(crate) struct Window {
    second: u32,
    spent: u32,
}

impl Window {
    pub(crate) fn allows(&mut self, now: Duration, limit: u32) -> bool {
        let second = now.as_secs() as u32;
        if second != self.second {
            self.second = second;
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= limit
    }
}

/// So much at once, and so much more each second.
#[derive(Clone, Copy, Default)]
pub(crate) struct Budget {
    spent: u64,
    /// In microseconds.
    at: u64,
}

impl Budget {
    /// Whether this much may be spent now, in microseconds. What costs more than all that there may be
    /// passes alone.
    pub(crate) fn spend(&mut self, (burst, rate): (u64, u64), cost: u64, now: u64) -> bool {
        let back = now.saturating_sub(self.at).saturating_mul(rate) / 1_000_000;
        if back > 0 {
            self.spent = self.spent.saturating_sub(back);
            self.at = now;
        }
        let fits = self.spent == 0 || self.spent.saturating_add(cost) <= burst;
        if fits {
            self.spent = self.spent.saturating_add(cost);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_again_each_second() {
        let mut window = Window::default();
        let at = Duration::from_millis;
        assert!(window.allows(at(100), 2) && window.allows(at(900), 2));
        assert!(!window.allows(at(999), 2));
        assert!(window.allows(at(1000), 2));
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let mut budget = Budget::default();
        let limit = (4, 2);
        assert!((0..4).all(|_| budget.spend(limit, 1, 0)));
        assert!(!budget.spend(limit, 1, 400_000));
        assert!(budget.spend(limit, 1, 500_000));
        assert!(!budget.spend(limit, 1, 500_000));
        assert!(budget.spend(limit, 9, 60_000_000), "all of it for one");
        assert!(!budget.spend(limit, 1, 60_000_000));
    }
}
