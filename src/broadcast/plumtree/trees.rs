//! The eager links of each tree: one bit for each neighbour slot. And from which neighbour a tree's broadcasts are
//! to come if they can't come from the present one any longer.

use crate::broadcast::seen::KeyMap;

use super::messages::{Of, Tree as Which};

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
    /// Of those whose broadcasts shape it; 0 if there are none.
    key: u64,
    of: Option<Of<P>>,
    used: u64,
    /// Links between this node and the root, when the newest broadcast came.
    hops: u16,
    /// A neighbour that has it too, and whether it is nearer to the root.
    spare: Option<(u16, bool)>,
}

impl<P> Tree<P> {
    fn new(key: u64, of: Option<Of<P>>, used: u64) -> Self {
        Self {
            key,
            of,
            used,
            hops: 0,
            spare: None,
        }
    }
}

/// A tree in the table, until the next [`Trees::create`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Row(usize);

/// The row of the common tree.
const COMMON: Row = Row(0);

/// The trees, a row of bits for each. The first is the common one, that of its core.
#[derive(Clone)]
pub(super) struct Trees<P> {
    bits: Vec<u64>,
    /// Words of a row.
    stride: usize,
    trees: Vec<Tree<P>>,
    index: KeyMap<u64, u32>,
    limit: usize,
    clock: u64,
}

impl<P> Trees<P> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bits: Vec::new(),
            stride: 0,
            trees: vec![Tree::new(0, None, 0)],
            index: KeyMap::default(),
            limit: limit.max(1),
            clock: 0,
        }
    }

    /// The tree that broadcasts of this key take. The common one has none before a broadcast has come
    /// along it, and is none of a core's that is not its own.
    pub(super) fn find(&self, key: u64, which: Which) -> Option<Row> {
        match which {
            Which::Own => Some(Row(*self.index.get(&key)? as usize)),
            Which::Common => self.trees[0].of.as_ref().map(|_| COMMON),
            Which::Core => (self.trees[0].key == key).then_some(COMMON),
        }
    }

    /// Makes a tree. One of a single root takes the place of the least recently used one if need be;
    /// one of a core that of the core before.
    pub(super) fn create(&mut self, key: u64, of: Of<P>, eager: &[u64]) -> Row {
        let row = match of.tree {
            Which::Core => {
                self.trees[0] = Tree::new(key, Some(of), 0);
                COMMON
            }
            // Without a core yet.
            Which::Common => {
                self.trees[0] = Tree::new(0, Some(of), 0);
                COMMON
            }
            Which::Own => {
                if self.trees.len() > self.limit {
                    self.evict();
                }
                self.clock += 1;
                self.index.insert(key, self.trees.len() as u32);
                self.trees.push(Tree::new(key, Some(of), self.clock));
                Row(self.trees.len() - 1)
            }
        };
        self.bits.resize(self.trees.len() * self.stride, 0);
        self.set_all(row, eager);
        row
    }

    fn evict(&mut self) {
        let single = self.trees.iter().enumerate().skip(1);
        let Some((at, _)) = single.min_by_key(|(_, t)| t.used) else {
            return;
        };
        let last = self.trees.len() - 1;
        let gone = self.trees.swap_remove(at);
        self.index.remove(&gone.key);
        let (from, to) = (last * self.stride, at * self.stride);
        self.bits.copy_within(from..from + self.stride, to);
        self.bits.truncate(from);
        if let Some(moved) = self.trees.get(at) {
            self.index.insert(moved.key, at as u32);
        }
    }

    /// Takes note that a tree is used.
    pub(super) fn touch(&mut self, row: Row) {
        self.clock += 1;
        self.trees[row.0].used = self.clock;
    }

    /// A new broadcast has come over so many links.
    pub(super) fn renew(&mut self, row: Row, hops: u16) {
        let tree = &mut self.trees[row.0];
        tree.hops = hops;
        tree.spare = None;
    }

    /// A neighbour at so many links from the root has the newest broadcast too. The first is kept, or the first that is
    /// nearer than this node: its way can't lead over here.
    pub(super) fn note_spare(&mut self, row: Row, slot: u16, hops: u16) {
        let tree = &mut self.trees[row.0];
        let nearer = hops < tree.hops;
        let better = |(_, was_nearer): (u16, bool)| nearer && !was_nearer;
        if tree.spare.is_none_or(better) {
            tree.spare = Some((slot, nearer));
        }
    }

    /// Takes the spare neighbour of a tree.
    pub(super) fn take_spare(&mut self, row: Row) -> Option<u16> {
        self.trees[row.0].spare.take().map(|(slot, _)| slot)
    }

    /// Whether there is room for one more tree, or another is disused: so many broadcasts have come
    /// since its last one.
    pub(super) fn has_room(&self, disuse: u64) -> bool {
        let mut single = self.trees.iter().skip(1);
        self.trees.len() <= self.limit || single.any(|t| t.used + disuse < self.clock)
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
        for (i, word) in self.row_mut(row).iter_mut().enumerate() {
            *word = eager.get(i).copied().unwrap_or(0);
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
        self.bits.resize(self.trees.len() * stride, 0);
    }

    /// Whose tree the common one is.
    pub(super) fn core(&self) -> Option<&Of<P>> {
        let of = self.trees[0].of.as_ref()?;
        (of.tree == Which::Core).then_some(of)
    }

    /// Roots that have a tree of their own.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Of<P>> {
        self.trees.iter().skip(1).filter_map(|t| t.of.as_ref())
    }

    /// All trees that somebody's broadcasts shape, by the keys of these.
    pub(super) fn keys(&self) -> impl Iterator<Item = (u64, &Of<P>)> {
        let shaped = self.trees.iter().filter(|t| t.key != 0);
        shaped.filter_map(|t| Some((t.key, t.of.as_ref()?)))
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
            tree: Which::Own,
        }
    }

    #[test]
    fn the_least_recently_used_tree_makes_room() {
        let mut trees = Trees::new(3);
        trees.widen(5);
        for root in 1..=3 {
            trees.create(root, of(root), &[root]);
        }
        let first = trees.find(1, Which::Own).unwrap();
        trees.touch(first);
        trees.create(4, of(4), &[4]);
        assert!(trees.find(2, Which::Own).is_none());
        for root in [1, 3, 4] {
            let row = trees.find(root, Which::Own).unwrap();
            assert_eq!(trees.row(row), [root]);
        }
        assert_eq!(trees.roots().count(), 3);
    }

    #[test]
    fn rows_keep_their_bits_when_there_are_more_slots() {
        let mut trees = Trees::new(10);
        trees.widen(3);
        let row = trees.create(1, of(1), &[0b101]);
        let core = Of {
            tree: Which::Core,
            ..of(9)
        };
        trees.create(9, core, &[0b010]);
        assert!(trees.find(8, Which::Core).is_none());
        trees.widen(130);
        trees.set(row, 129, true);
        assert_eq!(
            slots(trees.row(row).iter().copied()).collect::<Vec<_>>(),
            [0, 2, 129]
        );
        let common = trees.find(0, Which::Common).unwrap();
        assert_eq!(
            slots(trees.row(common).iter().copied()).collect::<Vec<_>>(),
            [1]
        );
        trees.clear_slot(2);
        assert!(!trees.is_eager(row, 2) && trees.is_eager(row, 0));
    }
}
