//! Choices out of bytes: the same bytes, the same choices.

/// Gives zeros once it is used up, so that any bytes make a whole sequence.
pub(crate) struct Feed<'a>(pub(crate) &'a [u8]);

impl Feed<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        u32::from(self.byte()) % limit
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Up to 255 of the next bytes.
    pub(crate) fn run(&mut self) -> &[u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (run, rest) = self.0.split_at(length);
        self.0 = rest;
        run
    }

    /// Numbers below `limit` (32 at most), ascending.
    pub(crate) fn set(&mut self, limit: u32) -> Vec<u32> {
        let bits = u32::from(self.u16()) | u32::from(self.u16()) << 16;
        (0..limit).filter(|number| bits >> number & 1 == 1).collect()
    }

    /// A few numbers below `limit`.
    pub(crate) fn few(&mut self, limit: u8) -> Vec<u8> {
        (0..self.byte() % 5).map(|_| self.byte() % limit).collect()
    }
}
