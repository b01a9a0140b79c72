//! Congestion control that lets a good-bye through.
//!
//! The QUIC library holds back the packet that ends a connection while the congestion window is full, and as it takes no
//! acknowledgements any more by then, it never sends it: whoever was being sent a part learnt neither the end nor the reason
//! (<https://github.com/quinn-rs/quinn/issues/2785>, mended after quinn-proto 0.11.19).
//! So the window of a connection that ends has no bounds; nothing but that packet is sent then.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Makes the controllers of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Farewells {
    all_end: Arc<AtomicBool>,
}

impl Farewells {
    /// All connections of the endpoint are about to be closed.
    pub(crate) fn all_end(&self) {
        self.all_end.store(true, Ordering::Relaxed);
    }
}

/// A connection is about to be closed.
pub(crate) fn ends(connection: &quinn::Connection) {
    if let Ok(farewell) = connection.congestion_state().into_any().downcast::<Farewell>() {
        farewell.ends.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for Farewells {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let usual = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(Farewell { usual, ends: Arc::default(), all_end: self.all_end.clone() })
    }
}

/// The usual controller until the end.
struct Farewell {
    usual: Box<dyn Controller>,
    ends: Arc<AtomicBool>,
    all_end: Arc<AtomicBool>,
}

impl Controller for Farewell {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.usual.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &quinn_proto::RttEstimator) {
        self.usual.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.usual.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.usual.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.usual.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.ends.load(Ordering::Relaxed) || self.all_end.load(Ordering::Relaxed) {
            // Half of all, because the library adds to what is under way.
            u64::MAX / 2
        } else {
            self.usual.window()
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.usual.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (ends, all_end) = (self.ends.clone(), self.all_end.clone());
        Box::new(Self { usual: self.usual.clone_box(), ends, all_end })
    }

    fn initial_window(&self) -> u64 {
        self.usual.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
