//! Numbers of the control messages, `enum dop` in `erts/emulator/beam/dist.h`.

macro_rules! operations {
    ($($name:ident = $number:literal;)*) => {
        $(pub(super) const $name: u8 = $number;)*

        /// Every operation with its name in `dist.h` (there with the prefix `DOP_`).
        pub(super) const ALL: &[(&str, u8)] = &[$((stringify!($name), $name)),*];
    };
}

operations! {
    LINK = 1;
    SEND = 2;
    EXIT = 3;
    UNLINK = 4;
    REG_SEND = 6;
    GROUP_LEADER = 7;
    EXIT2 = 8;
    SEND_TT = 12;
    EXIT_TT = 13;
    REG_SEND_TT = 16;
    EXIT2_TT = 18;
    MONITOR_P = 19;
    DEMONITOR_P = 20;
    MONITOR_P_EXIT = 21;
    SEND_SENDER = 22;
    SEND_SENDER_TT = 23;
    PAYLOAD_EXIT = 24;
    PAYLOAD_EXIT_TT = 25;
    PAYLOAD_EXIT2 = 26;
    PAYLOAD_EXIT2_TT = 27;
    PAYLOAD_MONITOR_P_EXIT = 28;
    SPAWN_REQUEST = 29;
    SPAWN_REQUEST_TT = 30;
    SPAWN_REPLY = 31;
    SPAWN_REPLY_TT = 32;
    ALIAS_SEND = 33;
    ALIAS_SEND_TT = 34;
    UNLINK_ID = 35;
    UNLINK_ID_ACK = 36;
    ALTACT_SIG_SEND = 37;
}

/// Its name, for messages to people.
pub(super) fn name(operation: i64) -> &'static str {
    ALL.iter()
        .find(|(_, number)| i64::from(*number) == operation)
        .map_or("an unknown operation", |(name, _)| name)
}

/// Flags of `ALTACT_SIG_SEND`, `ERTS_DOP_ALTACT_SIG_FLG_*`.
pub(super) mod altact {
    pub(in super::super) const PRIORITY: u8 = 1;
    pub(in super::super) const TOKEN: u8 = 1 << 1;
    pub(in super::super) const ALIAS: u8 = 1 << 2;
    pub(in super::super) const NAME: u8 = 1 << 3;
    pub(in super::super) const EXIT: u8 = 1 << 4;
}
