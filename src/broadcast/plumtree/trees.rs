//! The eager links of each tree: one bit for each neighbour slot. And from which neighbour a tree's broadcasts are
//! to come if they can't come from the present one any longer.

use crate::broadcast::seen::KeyMap;

use super::messages::Of;

/// Slots of one word.
const WORD: usize = 64;

/// Slots whose bits are set in these words, in ascending order.
pub(super) fn slots(words: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u16> {
    words.into_iter().enumerate().flat_map(|(i, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros() as usize;
            word &= word.wrapping_sub(1);
            (bit < WORD).then_some((i * WORD + bit) as u16)
        })
    })
}

pub(super) fn get_bit(words: &[u64], slot: u16) -> bool {
    let (word, bit) = (usize::from(slot) / WORD, usize::from(slot) % WORD);
    words.get(word).is_some_and(|w| w >> bit & 1 == 1)
}

pub(super) fn set_bit(words: &mut [u64], slot: u16, value: bool) {
    let (word, bit) = (usize::from(slot) / WORD, usize::from(slot) % WORD);
    if let Some(w) = words.get_mut(word) {
        *w = (*w & !(1 << bit)) | (u64::from(value) << bit);
    }
}

#[derive(Clone)]
struct Tree<P> {
    key: u64,
    of: Of<P>,
    used: u64,
    /// Links between this node and the root, when the newest broadcast came.
    hops: u16,
    /// A neighbour that has it too, and whether it is nearer to the root.
    spare: Option<(u16, bool)>,
}

/// A tree in the table, until the next [`Trees::create`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Row(usize);

/// The trees. Row 0 is the common one; row `i + 1` is that of `trees[i]`.
#[derive(Clone)]
pub(super) struct Trees<P> {
    bits: Vec<u64>,
    /// Words of a row.
    stride: usize,
    trees: Vec<Tree<P>>,
    index: KeyMap<u64, u32>,
    common: bool,
    limit: usize,
    clock: u64,
}

impl<P> Trees<P> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bits: Vec::new(),
            stride: 0,
            trees: Vec::new(),
            index: KeyMap::default(),
            common: false,
            limit: limit.max(1),
            clock: 0,
        }
    }

    pub(super) fn find(&self, key: u64, common: bool) -> Option<Row> {
        match common {
            true => self.common.then_some(Row(0)),
            false => Some(Row(*self.index.get(&key)? as usize + 1)),
        }
    }

    /// Makes a tree, in the place of the least recently used one if need be.
    pub(super) fn create(&mut self, key: u64, of: Of<P>, eager: &[u64]) -> Row {
        if self.bits.is_empty() {
            self.bits.resize(self.stride, 0);
        }
        let row = if of.common {
            self.common = true;
            Row(0)
        } else {
            if self.trees.len() >= self.limit {
                self.evict();
            }
            self.clock += 1;
            self.index.insert(key, self.trees.len() as u32);
            self.trees.push(Tree {
                key,
                of,
                used: self.clock,
                hops: 0,
                spare: None,
            });
            let end = (self.trees.len() + 1) * self.stride;
            self.bits.resize(end, 0);
            Row(self.trees.len())
        };
        let stride = self.stride;
        for (i, word) in self.row_mut(row).iter_mut().enumerate() {
            *word = eager.get(i).copied().filter(|_| i < stride).unwrap_or(0);
        }
        row
    }

    fn evict(&mut self) {
        let oldest = self.trees.iter().enumerate().min_by_key(|(_, t)| t.used);
        let Some((at, _)) = oldest else { return };
        let last = self.trees.len() - 1;
        let gone = self.trees.swap_remove(at);
        self.index.remove(&gone.key);
        let (from, to) = ((last + 1) * self.stride, (at + 1) * self.stride);
        self.bits.copy_within(from..from + self.stride, to);
        self.bits.truncate(from);
        if let Some(moved) = self.trees.get(at) {
            self.index.insert(moved.key, at as u32);
        }
    }

    /// Takes note that a tree is used.
    pub(super) fn touch(&mut self, row: Row) {
        self.clock += 1;
        if row.0 > 0 {
            self.trees[row.0 - 1].used = self.clock;
        }
    }

    /// A new broadcast has come over so many links.
    pub(super) fn renew(&mut self, row: Row, hops: u16) {
        if let Some(tree) = row.0.checked_sub(1).and_then(|at| self.trees.get_mut(at)) {
            tree.hops = hops;
            tree.spare = None;
        }
    }

    /// A neighbour at so many links from the root has the newest broadcast too. The first is kept, or the first that is
    /// nearer than this node: its way can't lead over here.
    pub(super) fn note_spare(&mut self, row: Row, slot: u16, hops: u16) {
        if let Some(tree) = row.0.checked_sub(1).and_then(|at| self.trees.get_mut(at)) {
            let nearer = hops < tree.hops;
            if tree
                .spare
                .is_none_or(|(_, was_nearer)| nearer && !was_nearer)
            {
                tree.spare = Some((slot, nearer));
            }
        }
    }

    /// Takes the spare neighbour of a tree.
    pub(super) fn take_spare(&mut self, row: Row) -> Option<u16> {
        let tree = self.trees.get_mut(row.0.checked_sub(1)?)?;
        tree.spare.take().map(|(slot, _)| slot)
    }

    /// Whether there is room for one more tree, or another is disused: so many broadcasts have come
    /// since its last one.
    pub(super) fn has_room(&self, disuse: u64) -> bool {
        self.trees.len() < self.limit || self.trees.iter().any(|t| t.used + disuse < self.clock)
    }

    pub(super) fn row(&self, row: Row) -> &[u64] {
        &self.bits[row.0 * self.stride..(row.0 + 1) * self.stride]
    }

    fn row_mut(&mut self, row: Row) -> &mut [u64] {
        &mut self.bits[row.0 * self.stride..(row.0 + 1) * self.stride]
    }

    pub(super) fn is_eager(&self, row: Row, slot: u16) -> bool {
        get_bit(self.row(row), slot)
    }

    pub(super) fn set(&mut self, row: Row, slot: u16, eager: bool) {
        set_bit(self.row_mut(row), slot, eager);
    }

    pub(super) fn set_all(&mut self, row: Row, eager: &[u64]) {
        for (word, new) in self.row_mut(row).iter_mut().zip(eager) {
            *word = *new;
        }
    }

    /// The slot has another neighbour or none: it is in no tree.
    pub(super) fn clear_slot(&mut self, slot: u16) {
        for tree in &mut self.trees {
            tree.spare.take_if(|(spare, _)| *spare == slot);
        }
        if self.stride > 0 {
            for row in self.bits.chunks_mut(self.stride) {
                set_bit(row, slot, false);
            }
        }
    }

    /// Makes room for so many slots.
    pub(super) fn widen(&mut self, slots: usize) {
        let stride = slots.div_ceil(WORD);
        if stride <= self.stride {
            return;
        }
        if let Some(rows) = self.bits.len().checked_div(self.stride) {
            let mut bits = Vec::with_capacity(rows * stride);
            for row in self.bits.chunks(self.stride) {
                bits.extend_from_slice(row);
                bits.resize(bits.len() + stride - self.stride, 0);
            }
            self.bits = bits;
        }
        self.stride = stride;
        self.bits.resize((self.trees.len() + 1) * stride, 0);
    }

    /// Roots that have a tree of their own.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Of<P>> {
        self.trees.iter().map(|t| &t.of)
    }

    /// Those trees, by their roots' keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = (u64, &Of<P>)> {
        self.trees.iter().map(|t| (t.key, &t.of))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bits.capacity() * 8
            + self.trees.capacity() * size_of::<Tree<P>>()
            + self.index.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: u64) -> Of<u64> {
        Of {
            root,
            life: 1,
            common: false,
        }
    }

    #[test]
    fn the_least_recently_used_tree_makes_room() {
        let mut trees = Trees::new(3);
        trees.widen(5);
        for root in 1..=3 {
            trees.create(root, of(root), &[root]);
        }
        let first = trees.find(1, false).unwrap();
        trees.touch(first);
        trees.create(4, of(4), &[4]);
        assert!(trees.find(2, false).is_none());
        for root in [1, 3, 4] {
            let row = trees.find(root, false).unwrap();
            assert_eq!(trees.row(row), [root]);
        }
        assert_eq!(trees.roots().count(), 3);
    }

    #[test]
    fn rows_keep_their_bits_when_there_are_more_slots() {
        let mut trees = Trees::new(10);
        trees.widen(3);
        let row = trees.create(1, of(1), &[0b101]);
        let common = Of {
            common: true,
            ..of(9)
        };
        trees.create(9, common, &[0b010]);
        trees.widen(130);
        trees.set(row, 129, true);
        assert_eq!(
            slots(trees.row(row).iter().copied()).collect::<Vec<_>>(),
            [0, 2, 129]
        );
        let common = trees.find(0, true).unwrap();
        assert_eq!(
            slots(trees.row(common).iter().copied()).collect::<Vec<_>>(),
            [1]
        );
        trees.clear_slot(2);
        assert!(!trees.is_eager(row, 2) && trees.is_eager(row, 0));
    }
}
