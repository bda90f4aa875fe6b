//! Every family of metrics that a node exports. `docs/metrics.md` has the same ones; a test compares
//! them. A name, once released, keeps its meaning.

use super::text::Family;
use super::text::Kind::{Counter, Gauge, Histogram};

macro_rules! families {
    ($($constant:ident = $name:literal $kind:ident $help:literal;)*) => {
        $(pub(super) const $constant: Family = Family($name, $kind, $help);)*
        /// All of them, in the order of a page.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD = "duolog_build_info" Gauge "1; the version that runs, the pair and the node.";
    STATE = "duolog_state" Gauge "1 for the state that the node has, 0 for the others.";
    SYNC = "duolog_data_sync" Gauge "1 for the data synchronisation status that the node has, 0 for the others.";
    SERVES = "duolog_serves" Gauge "Whether the replicated directories are mounted here.";
    VIEW = "duolog_view" Gauge "Number of the view.";
    INCARNATION = "duolog_incarnation" Gauge "How many times the node was started.";
    LSN = "duolog_log_position_bytes" Gauge "Positions in the log: first, end, durable, acknowledged, committed, applied, checkpoint.";
    LAG_BYTES = "duolog_lag_bytes" Gauge "Log bytes that the second copy lacks; on a SECOND: that are not applied.";
    LAG_SECONDS = "duolog_lag_seconds" Gauge "For how long it has lacked something, to a second.";
    COMMIT = "duolog_commit_duration_seconds" Histogram "Every fsync of a server, from the request to the answer.";
    STAGE = "duolog_commit_stage_duration_seconds" Histogram "Stages of commits: local_write, queue, local_disk, peer and its parts, wake_up, fuse.";
    LOG_SYNC = "duolog_log_sync_duration_seconds" Histogram "Each sync of the log on this node's disk.";
    CONNECTED = "duolog_peer_connected" Gauge "Whether the nodes are connected.";
    RECONNECTS = "duolog_peer_reconnects_total" Counter "Connections after the first.";
    ROUND_TRIP = "duolog_link_round_trip_seconds" Gauge "Smoothed round trip of the network between the nodes, without any disk.";
    SHIPPED = "duolog_shipped_bytes_total" Counter "Log bytes shipped; on a SECOND: received.";
    WIRE = "duolog_wire_bytes_total" Counter "The same as they crossed the wire.";
    RATIO = "duolog_compression_ratio" Gauge "Log bytes for each byte on the wire.";
    LOG_SIZE = "duolog_log_kept_bytes" Gauge "Log that is kept.";
    RETENTION = "duolog_log_retention_limit_bytes" Gauge "Log that is kept for a peer that is away, at most; past it the places that changed are remembered.";
    LOG_FREE = "duolog_log_free_bytes" Gauge "Room for the log.";
    STORE_FREE = "duolog_store_free_bytes" Gauge "Room for the replicated directories, the smallest.";
    SLOWED = "duolog_writers_slowed" Gauge "Whether writers are slowed so that the other node catches up.";
    MAP_BYTES = "duolog_dirty_map_bytes" Gauge "Disk that the map of what changed in log that is not kept takes.";
    MAP_FILES = "duolog_dirty_map_files" Gauge "Files that this map names.";
    MAP_EXTENTS = "duolog_dirty_map_extents" Gauge "Extents of them that this map names.";
    RESYNC_DONE = "duolog_resync_done_bytes" Gauge "Of the resynchronisation that goes on: bytes that were sent, or found equal.";
    RESYNC_TOTAL = "duolog_resync_total_bytes" Gauge "Of the resynchronisation that goes on: all of its bytes.";
    RESYNC_LEFT = "duolog_resync_left_seconds" Gauge "Of the resynchronisation that goes on: how long it will take at the pace so far.";
    RESYNCS = "duolog_resyncs_given_total" Counter "Resynchronisations from this node, by how far they came: begun, finished.";
    RESYNC_WIRE = "duolog_resync_wire_bytes_total" Counter "Bytes on the wire of all resynchronisations from this node.";
    PATH_UP = "duolog_path_up" Gauge "Whether a path of heartbeats is answered; to: peer or witness.";
    PATH_TRIP = "duolog_path_round_trip_seconds" Gauge "How long the last answer on a path of heartbeats took.";
    ADDRESS = "duolog_virtual_ip_here" Gauge "Whether a clients' address is on this node.";
    SERVICE = "duolog_service_running" Gauge "Whether a service runs here.";
    ERROR_DETECTION = "duolog_error_detection" Gauge "Whether failures of services count; 0 while an operator suspends that.";
    SERVICE_FAILED = "duolog_service_failed" Gauge "Whether a service failed and is restarted or given up; 0 while its error detection is suspended.";
    RESTARTS = "duolog_service_restarts" Gauge "Restarts of a service that count against its limit now.";
    CHECKER = "duolog_checker_ok" Gauge "Whether a checker found its service well when it looked last.";
    RECEIPTS = "duolog_receipts" Gauge "Failover receipts that are kept, by event.";
    RECEIPTS_TOTAL = "duolog_receipts_written_total" Counter "Failover receipts that this node ever wrote.";
    PROMOTIONS = "duolog_promotions_total" Counter "Promotions of this node, by why: takeovers, swaps, forced starts and others.";
    ALARMS = "duolog_alarms" Gauge "Alarms that are up now; duolog status has their texts.";
    VERIFY_AGE = "duolog_verify_timestamp_seconds" Gauge "When both copies were compared last, in seconds since 1970.";
    VERIFY_DIFFERENCES = "duolog_verify_differences" Gauge "What the last comparison of both copies found different.";
    CERTIFICATE = "duolog_certificate_left_days" Gauge "Days until a certificate ends; negative afterwards.";
}
