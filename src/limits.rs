//! Every bound that protects a node, in one place.
//!
//! What a peer sends may never cost more memory or time than these allow; what a local process
//! sends is bounded by the same numbers, so that the error appears where the message was made.
//! Values a user may change are the defaults of the configuration key named beside them.

use std::time::Duration;

/// Deepest nesting of lists, tuples, maps and fun environments in one term.
///
/// The value keeps recursive consumers of decoded terms far from the end of a 2 MiB stack.
pub const MAX_TERM_DEPTH: u32 = 1024;

/// Largest encoded term without its out-of-band binaries, in bytes (`max_term_bytes`).
pub const MAX_TERM_BYTES: usize = 64 << 20;

/// Most heap that a decoded term may take in the VM, in bytes (`max_term_heap`).
pub const MAX_TERM_HEAP: u64 = 256 << 20;

/// Largest message: encoded term plus its out-of-band binaries, in bytes (`max_message_bytes`).
pub const MAX_MESSAGE_BYTES: u64 = 2 << 30;

/// Most out-of-band binaries in one message.
pub const MAX_BLOBS: usize = 1 << 20;

/// New atoms that one peer may introduce into this node (`max_new_atoms`). A VM never forgets an
/// atom, so the count goes on through all sessions of the peer.
pub const MAX_NEW_ATOMS: u32 = 100_000;

/// All peers together may introduce this many times what one may, whatever they call themselves.
/// With the default that is less than half of the VM's table.
pub const NEW_ATOMS_OF_ALL: u32 = 4;

/// Longest atom, in characters. The VM's own limit.
pub const MAX_ATOM_CHARS: usize = 255;

/// Most words of a reference. The VM's own limit (`ERTS_MAX_REF_NUMBERS`).
pub const MAX_REFERENCE_WORDS: usize = 5;

/// Largest size that a compressed term may claim and inflate to, in bytes.
pub const MAX_INFLATED_BYTES: usize = MAX_TERM_BYTES;

/// How often all bytes of a term may be looked at as parts of keys of maps. Keys of usual terms are
/// looked at once, those within keys once more for each.
pub const KEY_NESTING: u64 = 32;

/// So many keys of one map are compared one by one.
pub const FEW_KEYS: usize = 8;

/// Largest creation in the old encodings of identifiers, which have a byte for it.
pub const MAX_OLD_CREATION: u8 = 3;

/// First words of references in the old encodings are smaller: they have 18 bits.
pub const OLD_REFERENCES: u32 = 1 << 18;

/// A slice of a buffer of which less than one part in this many is kept is copied instead, so
/// that no term keeps a much larger buffer alive.
pub const MAX_PINNED_RATIO: usize = 4;

/// A term that is read in place notes where its containers end below so many levels, so that none
/// is stepped over more often than this.
pub const VIEW_LEVELS: u32 = 16;

/// It notes that of containers of at least so many bytes.
pub const VIEW_REMEMBERED_BYTES: usize = 64;

/// Atoms that each thread keeps so that it need not allocate them again.
pub const KEPT_ATOMS: usize = 512;

/// Names of nodes that each thread keeps so.
pub const KEPT_NODES: usize = 64;

/// Longest atom that is kept so, in bytes.
pub const MAX_KEPT_ATOM_BYTES: usize = 64;

/// Most digits of an integer in a term that is read from text. What it takes to read one grows
/// with the square of them.
pub const MAX_TEXT_DIGITS: usize = 100_000;

/// Largest size of an integer in a bitstring that is read from text, in bits.
pub const MAX_TEXT_SEGMENT_BITS: u64 = 65_536;

/// Room for encoding that each thread keeps from one term to the next, in bytes.
pub const KEPT_ENCODE_BYTES: usize = 64 << 10;

/// Binaries of at least this many bytes travel out of band in an elided term.
///
/// Part of the frame format: both ends must agree on it.
pub const OUT_OF_BAND_BYTES: usize = 16 << 10;

/// Largest frame that a peer may send, in bytes after the length field.
pub const MAX_FRAME_BYTES: usize = 1 << 20;

/// Payload of one fragment while several senders share a connection.
pub const FRAGMENT_SHARED_BYTES: usize = 64 << 10;

/// Payload of one fragment while a single sender uses a connection.
pub const FRAGMENT_ALONE_BYTES: usize = 256 << 10;

/// Messages that a peer may have under way, fragmented, on one connection.
pub const MAX_OPEN_STREAMS: usize = 1024;

/// Bytes that unfinished messages may hold on one connection beyond one message of the largest
/// size.
pub const MAX_OPEN_STREAM_BYTES: u64 = 256 << 20;

/// A large binary is allocated whole up to this size; beyond it the allocation grows with the
/// bytes that have arrived.
pub const ALLOCATE_AT_ONCE_BYTES: u64 = 16 << 20;

/// Memory of dead binaries that a BEAM node keeps for the next large ones it receives, in bytes
/// (`receive_pool_bytes`).
pub const RECEIVE_POOL_BYTES: usize = 1 << 30;

/// Such memory goes back to the system after this time without use.
pub const RECEIVE_POOL_IDLE: Duration = Duration::from_secs(4);

/// The largest message that goes by the first connection of its channel while that has little to do (`bundle_bytes`).
pub const BUNDLE_BYTES: u64 = 4 << 10;

/// Budget of queued bytes per connection (`queue_bytes`).
pub const QUEUE_BYTES: u64 = 16 << 20;

/// A sender that finds its connection idle for this long writes on its own thread
/// (`direct_write_gap`).
pub const DIRECT_WRITE_GAP: Duration = Duration::from_micros(20);

/// Niceness of bulk threads (`bulk_nice`).
pub const BULK_NICE: u8 = 0;

/// How long an I/O thread looks for more work before it sleeps (`io_spin`).
pub const SPIN: Duration = Duration::from_micros(100);

/// Size of the receive buffers of near connections (`receive_buffer`); 0: as the system likes.
pub const RECEIVE_BUFFER: usize = 512 << 10;

/// A connection is near if its round trip is shorter: 512 KiB in it are 1 GB/s.
pub const NEAR: Duration = Duration::from_micros(500);

/// Unsent bytes that a socket's send buffer may hold (`unsent_bytes`); 0: as many as fit.
pub const UNSENT_BYTES: u32 = 512 << 10;

/// Ceiling of queued bytes over all connections of a node (`node_queue_bytes`).
pub const NODE_QUEUE_BYTES: u64 = 1 << 30;

/// Bytes of received messages that may be on their way through other threads of the host, per
/// connection, before the connection stops reading.
pub const HANDED_OVER_BYTES: u64 = 1 << 20;

/// Longest handshake packet accepted, in bytes.
pub const MAX_HANDSHAKE_PACKET: usize = 4096;

/// Longest hello frame accepted, in bytes.
pub const MAX_HELLO_BYTES: usize = 64 << 10;

/// Time that a handshake may take from accept or connect to its end.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that a handshake may take while others wait for room to begin theirs.
pub const CROWDED_HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(750);

/// Connections that may be in their handshake at once; further ones wait until there is room.
pub const MAX_UNAUTHENTICATED: usize = 128;

/// Time that EPMD may take for an answer. OTP waits ten seconds; EPMD answers from memory.
pub const EPMD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest list of names that EPMD may send, in bytes.
pub const MAX_EPMD_NAMES: u64 = 1 << 20;

/// Longest other answer of EPMD, in bytes: its fixed fields, a name and extra bytes.
pub const MAX_EPMD_ANSWER: u64 = 4096;

/// First and longest pause before a node registers again with an EPMD that went away. OTP waits
/// two seconds each time (`erl_epmd.erl`).
pub const EPMD_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Addresses of one host that a dial tries.
pub const MAX_ADDRESSES: usize = 8;

/// Silence after which the older of two nodes of one name is taken to be dead.
pub const DUPLICATE_NAME_PATIENCE: Duration = Duration::from_secs(2);

/// Most channels in a session.
pub const MAX_CHANNELS: usize = 64;

/// Most connections of one channel.
pub const MAX_PARALLELISM: u16 = 256;

/// Most connections of one session.
pub const MAX_CONNECTIONS: usize = 1024;

/// Largest membership message, in bytes.
pub const MAX_CONTROL_BYTES: usize = 1 << 20;

/// Messages for the node itself that may wait for its control plane, in bytes, plus one message.
pub const INLET_BYTES: usize = 16 << 20;

/// Largest message by which a broadcast travels, in bytes: the payload and what is around it.
pub const MAX_BROADCAST_MESSAGE_BYTES: usize = MAX_BROADCAST_BYTES + (4 << 10);

/// Bytes of broadcasts that may wait for room towards one neighbour.
pub const BROADCAST_BACKLOG_BYTES: usize = 32 << 20;

/// A connection is bulk after a message over this many bytes, and served by a bulk I/O thread. Moving smaller ones is
/// shorter than the hop to another thread.
pub const BULK_MESSAGE_BYTES: u64 = 128 << 10;

/// A bulk connection becomes an ordinary one after this long without such a message.
pub const BULK_LINGER: Duration = Duration::from_secs(1);

/// Bytes of messages for full mailboxes that are kept per link with a stock node; then the link is
/// not read.
pub const KEPT_BYTES: u64 = 4 << 20;

/// Bytes of signals of links, monitors and exits that may wait for a stock node to read. They
/// can't be made to wait as messages can; a node that lets more pile up is given up.
pub const MAX_UNASKED_BYTES: usize = 64 << 20;

/// Silence after which a stock node is taken to be dead (`net_ticktime`).
pub const TICK_TIME: Duration = Duration::from_secs(60);

/// Time that what was sent last to stock nodes may take to leave when a node stops. Whoever reads gets it within
/// milliseconds; this is for those that are slow.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

/// Functions that run for stock nodes at once; further requests are answered `system_limit`.
pub const MAX_SPAWNED: usize = 16_384;

/// Links and monitors that one stock node may have at this node's processes
/// (`max_peer_relations`).
pub const MAX_PEER_RELATIONS: usize = 1 << 20;

/// Bytes that the members of process groups may take that one stock node brings, per scope. What
/// is beyond is left out.
pub const MAX_PG_PEER_BYTES: usize = 256 << 20;

/// What a member of a process group takes beside the name of its group, in bytes, about.
pub const PG_MEMBER_BYTES: usize = 96;

/// Most members that one message may take out of process groups.
pub const MAX_PG_LEAVES: usize = MAX_PG_PEER_BYTES / PG_MEMBER_BYTES;

/// First and longest pause before a stock node is asked again whether it has a scope of process
/// groups.
pub const PG_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Changes of process groups that wait for a reader; a slower one misses some.
pub const PG_BACKLOG: usize = 1024;

/// Members, tombstones included, that a membership state may hold.
pub const MAX_MEMBERS: usize = 16_384;

/// Payload of one fragment of a distribution signal. That of the VM, `ERTS_DIST_FRAGMENT_SIZE`.
pub const DIST_FRAGMENT_BYTES: usize = 64 << 10;

/// Fragmented distribution signals that a peer may have under way on one connection. The VM sends
/// one for each process that is in the middle of a large send.
pub const MAX_OPEN_SEQUENCES: usize = 8192;

/// Bytes that unfinished distribution signals may hold on one connection beyond one signal of
/// the largest size.
pub const MAX_OPEN_SEQUENCE_BYTES: u64 = 256 << 20;

/// Parts of a term of at least this many bytes are written out from where they are, not copied.
pub const WRITE_IN_PLACE_BYTES: usize = 8 << 10;

/// A message to a stock node of at most this many bytes is copied when it is sent.
pub const SMALL_MESSAGE_BYTES: usize = 2 << 10;

/// Largest payload of a broadcast, in bytes.
pub const MAX_BROADCAST_BYTES: usize = 8 << 20;

/// Largest number of a broadcast of one root and life. What is left of 64 bits in the table of
/// those that have come.
pub const MAX_BROADCAST_SEQUENCE: u64 = (1 << 46) - 1;

/// Most links that a broadcast may pass: a chain of the largest cluster.
pub const MAX_BROADCAST_HOPS: u32 = 16_384;

/// Most neighbours that broadcasts are sent to. Their slots fit the 15 bits that the table of
/// roots has for one.
pub const MAX_BROADCAST_NEIGHBORS: usize = 16_384;

/// Trees of single roots that a node keeps; beyond it roots share one.
pub const MAX_BROADCAST_TREES: usize = 1024;

/// Roots, with their lives, of which a node knows what has come. 16 bytes each.
pub const MAX_BROADCAST_ROOTS: usize = 1 << 16;

/// Roots that a neighbour may introduce at once, and how many more each second.
pub const NEW_BROADCAST_ROOTS: (u64, u64) = (1 << 14, 256);

/// Ranges of numbers of one root that have come beyond a gap; with more the lowest gap is given up.
pub const MAX_BROADCAST_GAPS: usize = 64;

/// Roots with gaps.
pub const MAX_BROADCAST_GAPPED: usize = 4096;

/// A gap is given up after this time: no cache has what is missing.
pub const BROADCAST_GAP_TIME: Duration = Duration::from_secs(120);

/// Payloads kept for neighbours that ask for them: how many, how many bytes, how long.
pub const MAX_BROADCAST_CACHE: usize = 4096;

/// Bytes of payloads kept so, and of their entries.
pub const BROADCAST_CACHE_BYTES: usize = 32 << 20;

/// How long a payload is kept so.
pub const BROADCAST_CACHE_TIME: Duration = Duration::from_secs(60);

/// Bytes of kept payloads that a neighbour may ask for at once, and how many more each second.
pub const BROADCAST_RESENDS: (u64, u64) = (64 << 20, 16 << 20);

/// Broadcasts that were announced and have not come, of all neighbours.
pub const MAX_BROADCAST_MISSING: usize = 16_384;

/// Such broadcasts that one neighbour was the first to announce: all that its cache may have.
pub const MAX_BROADCAST_MISSING_OF_PEER: usize = 4096;

/// Neighbours kept in mind that have announced the same missing broadcast.
pub const MAX_BROADCAST_ANNOUNCERS: usize = 8;

/// Most broadcasts that one message announces or asks for.
pub const MAX_BROADCAST_IDS: usize = 1024;

/// Nodes that have sent broadcast messages before they were neighbours, kept in mind so that they
/// are asked to repeat what they have announced.
pub const MAX_BROADCAST_STRANGERS: usize = 64;

/// Most neighbours of a partial overlay.
pub const MAX_ACTIVE_VIEW: usize = 32;

/// Most further nodes that a partial overlay keeps at hand.
pub const MAX_PASSIVE_VIEW: usize = 128;

/// Most addresses that a node of a partial overlay remembers beyond those.
pub const MAX_HISTORY: usize = 4096;

/// Most nodes in one message of a partial overlay.
pub const MAX_GOSSIPED: usize = 64;

/// Longest random walk of a partial overlay, whatever a peer asks for.
pub const MAX_WALK: u8 = 16;

/// Links that a node of a partial overlay is making, or keeps for a short exchange, at once.
pub const MAX_ATTEMPTS: usize = 32;

/// Messages of one neighbour on a partial overlay that are handled within a second; so many again
/// of all that are none.
pub const MAX_GOSSIP_RATE: u32 = 1000;

/// Joins that a user may have pending on a partial overlay.
pub const MAX_PENDING_JOINS: usize = 16;

/// A full node of a partial overlay gives up neighbours for newcomers no faster than this.
pub const EVICTION_PAUSE: Duration = Duration::from_millis(20);

/// Remembered addresses that a node of a partial overlay dials at once after a quiet time, and how many
/// more each second.
pub const HISTORY_DIALS: (u64, u64) = (64, 16);

/// A node of a partial overlay with X-BOT is the candidate of others no more often than this.
pub const EXCHANGE_PAUSE: Duration = Duration::from_secs(1);

/// Nodes that have left and must not come back by hearsay, and for how long.
pub const MAX_DEPARTED: usize = 32;

/// See [`MAX_DEPARTED`].
pub const DEPARTED_TIME: Duration = Duration::from_secs(60);

/// Time in which a session that is no longer needed has to deliver what was sent over it.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(60);

/// Largest packet that is passed on, in bytes, with what is around it.
pub const MAX_RELAYED_BYTES: usize = 20 << 10;

/// Bytes of an IPv6 packet that is passed on.
pub const RELAY_MTU: usize = 16 << 10;

/// Bytes that a relayed connection may have under way in each direction, and keeps for the reader.
pub const RELAY_WINDOW: usize = 256 << 10;

/// Relayed connections of a node, its own and those of others to it.
pub const MAX_RELAYED: usize = 1024;

/// Nodes to which a way is remembered.
pub const MAX_WAYS: usize = 4096;

/// Nodes that are called at once.
pub const MAX_CALLED: usize = 256;

/// Calls that a node makes in a second.
pub const MAX_CALLS: u32 = 16;

/// Most nodes in a partial view of SCAMP, which should have some dozens.
pub const MAX_PARTIAL_VIEW: usize = 512;

/// Most nodes that may have a node in their partial views of SCAMP.
pub const MAX_IN_VIEW: usize = 1024;

/// Most copies of a subscription beyond those for each node in view.
pub const MAX_SUBSCRIPTION_COPIES: usize = 16;

/// Nodes that a copy of a subscription may pass, the most that its byte can say. With views of fifty one of two hundred goes so far, and
/// is kept at the end.
pub const MAX_SUBSCRIPTION_STEPS: u8 = u8::MAX;

/// Subscriptions that a contact sends on at once, and how many more each second.
pub const SUBSCRIPTIONS: (u64, u64) = (128, 64);

/// Names that a node with SCAMP remembers for the time when it has no neighbour left.
pub const MAX_KNOWN_NAMES: usize = 64;

/// Servers of a client–server overlay.
pub const MAX_SERVERS: usize = 64;

/// Clients of one server, unless it is configured otherwise.
pub const MAX_CLIENTS: usize = 4096;

/// Largest acknowledged or causal message, in bytes.
pub const MAX_DELIVERY_BYTES: usize = 8 << 20;

/// Largest message of acknowledged delivery: the user's, and what is around it.
pub const MAX_DELIVERY_MESSAGE_BYTES: usize = MAX_DELIVERY_BYTES + (512 << 10);

/// Bytes that were sent with acknowledgement and are not acknowledged yet, of all peers (`ack_bytes`). One peer may
/// have a quarter of it.
pub const DELIVERY_STORE_BYTES: usize = 64 << 20;

/// Messages that one peer has not acknowledged.
pub const DELIVERY_PEER_MESSAGES: usize = 1 << 16;

/// Senders that wait for room among those, and bytes of their messages.
pub const MAX_DELIVERY_WAITING: (usize, usize) = (1 << 16, 64 << 20);

/// Bytes of one stream of acknowledged messages that have come and wait to be delivered, beside the first.
pub const DELIVERY_HOLD_BYTES: usize = 4 << 20;

/// Such bytes of all streams. The first messages of streams may take as much four times.
pub const DELIVERY_HELD_BYTES: usize = 64 << 20;

/// Messages that are acknowledged at once.
pub const DELIVERY_ACK_EVERY: u32 = 64;

/// Longest time that an acknowledgement is put off.
pub const DELIVERY_ACK_DELAY: Duration = Duration::from_millis(20);

/// Longest pause between attempts to have a message acknowledged.
pub const MAX_DELIVERY_PAUSE: Duration = Duration::from_secs(60);

/// Streams of acknowledged messages that one peer may open: one for each channel and each label.
pub const MAX_DELIVERY_LANES: usize = 128;

/// Nodes that streams are kept for while there is no session with them.
pub const MAX_DELIVERY_PEERS: usize = 1 << 14;

/// Incarnations of nodes that one causal message tells of.
pub const MAX_CAUSAL_NODES: usize = 1024;

/// Pairs of nodes with messages under way that one causal message tells of.
pub const MAX_CAUSAL_ENTRIES: usize = 8192;

/// Labels of causal messages that a node keeps the order of.
pub const MAX_CAUSAL_LABELS: usize = 64;

/// Ended incarnations of one node that are kept in mind.
pub const MAX_CAUSAL_ENDED: usize = 16;
