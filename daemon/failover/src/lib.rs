//! Who may serve, decided: the state machine of a node and the register of a witness.
//!
//! A machine takes in events and says what to do about them; it never does anything itself. No
//! file, no socket, no clock, no thread, no log line. The shell that owns one carries its effects
//! out in order and tells it what came of them.
//!
//! ```text
//!                 Event                              Effect
//!  heartbeats, proposals ──┐             ┌── persist the register, sync the log
//!  witness's answers ──────┤             ├── commit rule, lease of the guardian
//!  link up, acknowledged ──┼── Machine ──┼── what the link is for
//!  tasks done, failed ─────┤             ├── start, stop, fence the services (tasks)
//!  operators, time ────────┘             └── messages, receipts, notes
//! ```

mod clock;
mod effect;
mod event;
mod machine;
pub mod message;
mod register;
mod settings;
mod standing;
pub mod table;
pub mod witness;

pub use clock::Now;
pub use effect::{
    CommitRule, Decider, Effect, Kept, Lease, LinkRole, Note, Promotion, Receipt, Refused, Task,
    Ticket,
};
pub use event::{Action, Event, Forced, LogFacts};
pub use machine::{Machine, Timer};
pub use message::{Message, Question, Reply};
pub use register::Register;
pub use settings::{Settings, SettingsError, Winner};
pub use standing::{Colour, DataSync, Standing, State};
pub use witness::{Witness, WitnessEffect};
