//! The clients' addresses on this node: taken before its services start, kept while it serves,
//! dropped when it does no more. Decides nothing about who serves.
//!
//! ```text
//!  ask ── is anybody there? ── take ── announced again, rivals answered ── drop
//!           └─ yes: serve without it, ask again │ fail the start │ take it all the same
//! ```
//! What another computer or another program does to an address never ends what is served: it is an
//! alarm, and what was lost is taken again. The guardian drops the same addresses by itself.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use duolog_vip::{Announcer, Device, Mac, Probed, REPEATS_MS, VipError, Watch};

use crate::config::{ClientAddress, Conflict};
use crate::status::Address;

/// How often is looked whether rivals speak, and whether the address is still here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often an address that could not be taken is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the kernel takes to find out that a device's own IPv6 address is nobody else's (RFC
/// 4862, 5.4: up to a second of delay, and one more of waiting), and a little.
const COMES_UP: Duration = Duration::from_millis(2500);
/// How often the address is announced once everybody should know.
const ANNOUNCE_EVERY: Duration = Duration::from_mins(1);
/// How often a rival is answered at most (RFC 5227, 2.4: `DEFEND_INTERVAL`).
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// How long a rival that was heard is an alarm.
const RIVAL_FOR: Duration = Duration::from_mins(1);

/// The clients' addresses of this node.
#[derive(Debug)]
pub(crate) struct Addresses {
    configured: Vec<ClientAddress>,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// Counts what was taken and dropped: work that began before is void.
    turn: u64,
    wanted: bool,
    each: Vec<Each>,
}

/// One of them, as it stands.
#[derive(Debug, Default)]
struct Each {
    here: Option<Here>,
    trouble: Option<String>,
    /// When it is asked for again.
    again: Option<Instant>,
}

#[derive(Debug)]
struct Here {
    device: String,
    announcer: Announcer,
    watch: Watch,
    taken: Instant,
    announced: usize,
    next: Instant,
    rival: Option<(Mac, Instant)>,
}

/// Somebody was asked for each address; see [`Addresses::ask`].
pub(crate) struct Asked(Vec<std::io::Result<thread::JoinHandle<Found>>>);

type Found = Result<(Device, Probed), VipError>;

impl Addresses {
    /// Takes away what a former process left here, and keeps what is taken later on a thread of
    /// its own.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(configured: &[ClientAddress]) -> std::io::Result<Arc<Self>> {
        let each = configured.iter().map(|_| Each::default()).collect();
        let this = Arc::new(Self {
            configured: configured.to_vec(),
            held: Mutex::new(Held { each, ..Held::default() }),
            changed: Condvar::new(),
        });
        if configured.is_empty() {
            return Ok(this);
        }
        if let Err(error) = this.drop_all() {
            tracing::error!(%error, "an address that a former node left stays here");
        }
        let keeper = Arc::downgrade(&this);
        thread::Builder::new().name("duolog-address".into()).spawn(move || keep(&keeper))?;
        Ok(this)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to ask whether somebody has the addresses, while the caller does something else.
    pub(crate) fn ask(&self) -> Asked {
        let ask = |configured: &ClientAddress| {
            let configured = configured.clone();
            let thread = thread::Builder::new().name("duolog-ask".into());
            thread.spawn(move || look(&configured))
        };
        Asked(self.configured.iter().map(ask).collect())
    }

    /// Takes the addresses; from now on they are kept.
    ///
    /// # Errors
    /// Somebody has one for which the start is to fail.
    pub(crate) fn take(&self, asked: Asked) -> Result<(), VipError> {
        let found: Vec<_> =
            asked.0.into_iter().map(|asked| asked.map(thread::JoinHandle::join)).collect();
        let mut held = self.held();
        held.turn += 1;
        held.wanted = true;
        for (index, found) in found.into_iter().enumerate() {
            let configured = &self.configured[index];
            let taken = match found {
                Ok(Ok(found)) => found.and_then(|found| settle(configured, found)),
                Ok(Err(_)) => Err(VipError::Ends { address: configured.address }),
                Err(source) => {
                    let address = configured.address;
                    Err(VipError::Io { address, what: "starting a thread that asks", source })
                }
            };
            let failed = held.each[index].learn(configured, taken);
            if let Some(error) = failed.filter(|_| configured.conflict == Conflict::Stop) {
                drop(held);
                // Those before it; one that stays is said when the node is fenced.
                self.drop_all().ok();
                return Err(error);
            }
        }
        drop(held);
        self.changed.notify_all();
        Ok(())
    }

    /// Drops the addresses: when it returns `Ok`, this node has none of them.
    ///
    /// # Errors
    /// One may be here still.
    pub(crate) fn drop_all(&self) -> Result<(), VipError> {
        let mut held = self.held();
        held.turn += 1;
        held.wanted = false;
        let mut result = Ok(());
        for (configured, each) in self.configured.iter().zip(&mut held.each) {
            let address = configured.address;
            match duolog_vip::drop_address(address) {
                Ok(_) => *each = Each::default(),
                Err(error) => {
                    each.trouble = Some(error.to_string());
                    result = Err(error);
                }
            }
        }
        result
    }

    /// How they stand.
    pub(crate) fn standing(&self) -> Vec<Address> {
        let held = self.held();
        let each = self.configured.iter().zip(&held.each);
        each.map(|(configured, each)| {
            let rival = each.here.as_ref().and_then(|here| here.rival);
            let rival = rival.map(|(mac, _)| {
                let address = configured.address;
                format!(
                    "virtual IP {address} is used by the computer with the hardware address {mac} \
                     too; give that one another address"
                )
            });
            Address {
                address: configured.address.to_string(),
                here: each.here.is_some(),
                device: each.here.as_ref().map(|here| here.device.clone()),
                trouble: each.trouble.clone().or(rival),
            }
        })
        .collect()
    }

    /// Looks after each once.
    fn look_after(&self) {
        let turn = self.held().turn;
        // What was taken or dropped since is not this look's any more.
        let held = || Some(self.held()).filter(|held| held.turn == turn && held.wanted);
        for (index, configured) in self.configured.iter().enumerate() {
            let Some(lost) = held().map(|mut held| held.each[index].look_after(configured)) else {
                return;
            };
            if !lost {
                continue;
            }
            // Asking takes its time, and whoever drops the addresses must not wait for it.
            let found = look(configured);
            let Some(mut held) = held() else { return };
            let taken = found.and_then(|found| settle(configured, found));
            held.each[index].learn(configured, taken);
        }
    }

    /// Waits until there is something to look after.
    fn wait(&self) {
        let held = self.held();
        let next = held.each.iter().filter_map(|each| Some(each.here.as_ref()?.next)).min();
        let wait = next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(Instant::now()));
        // Somebody who panicked has left nothing half done.
        drop(self.changed.wait_timeout(held, wait.min(LOOK_EVERY)));
    }
}

/// Looks after the addresses until nobody has them any more.
fn keep(addresses: &Weak<Addresses>) {
    while let Some(addresses) = addresses.upgrade() {
        addresses.look_after();
        addresses.wait();
    }
}

/// Asks whether somebody has the address. A device that has just come up cannot ask yet: that is
/// waited for, unless the node serves without the address meanwhile.
fn look(configured: &ClientAddress) -> Result<(Device, Probed), VipError> {
    let begun = Instant::now();
    loop {
        let device = Device::find(configured.address, configured.device.as_deref())?;
        let not_yet = match duolog_vip::probe(configured.address, &device) {
            Ok(found) => return Ok((device, found)),
            Err(error) if error.is_too_early() => error,
            Err(error) => return Err(error),
        };
        if configured.conflict == Conflict::Serve || begun.elapsed() >= COMES_UP {
            return Err(not_yet);
        }
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Takes the address, unless somebody has it who may keep it.
fn settle(configured: &ClientAddress, found: (Device, Probed)) -> Result<Here, VipError> {
    let address = configured.address;
    let (device, found) = found;
    match found {
        Probed::InUse(holder) if configured.conflict != Conflict::Take => {
            return Err(VipError::InUse { address, device: device.name, holder });
        }
        Probed::InUse(holder) => {
            tracing::error!(%address, %holder, "taken though that computer answers for it");
        }
        Probed::Free => {}
    }
    let watch = Watch::new(address, &device)?;
    let announcer = duolog_vip::take(address, &device)?;
    let taken = Instant::now();
    let next = taken + Duration::from_millis(REPEATS_MS[0]);
    Ok(Here { device: device.name, announcer, watch, taken, announced: 0, next, rival: None })
}

impl Each {
    /// It was taken, or not; returns why not.
    fn learn(
        &mut self,
        configured: &ClientAddress,
        taken: Result<Here, VipError>,
    ) -> Option<VipError> {
        let address = configured.address;
        match taken {
            Ok(here) => {
                if self.trouble.take().is_some() {
                    tracing::info!(%address, "the virtual IP is here after all");
                }
                (self.here, self.again) = (Some(here), None);
                None
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}; asked for again every {} s", AGAIN.as_secs());
                }
                self.here = None;
                (self.trouble, self.again) = (Some(trouble), Some(Instant::now() + AGAIN));
                Some(error)
            }
        }
    }

    /// Announces, listens, and looks whether it is here; whether it is to be taken now.
    fn look_after(&mut self, configured: &ClientAddress) -> bool {
        let (address, now) = (configured.address, Instant::now());
        let Some(here) = &mut self.here else {
            return self.again.is_some_and(|again| again <= now);
        };
        // What cannot be read now is looked at again in a second.
        if duolog_vip::is_here(address).is_ok_and(|here| !here) {
            tracing::error!(%address, "somebody took the virtual IP away from this computer");
            self.here = None;
            self.trouble =
                Some(format!("virtual IP {address} was taken away from here; it is taken again"));
            return true;
        }
        let rival = here.watch.rival(now).unwrap_or_default();
        let mut defend = false;
        match (rival, here.rival) {
            (Some(mac), before) => {
                defend = before.is_none_or(|(_, at)| now.duration_since(at) >= DEFEND_EVERY);
                if defend {
                    tracing::error!(%address, rival = %mac, "another computer uses the virtual IP");
                    here.rival = Some((mac, now));
                }
            }
            (None, Some((_, at))) if now.duration_since(at) >= RIVAL_FOR => here.rival = None,
            (None, _) => {}
        }
        if !defend && here.next > now {
            return false;
        }
        here.announced += 1;
        let repeat = REPEATS_MS.get(here.announced);
        here.next =
            repeat.map_or(now + ANNOUNCE_EVERY, |ms| here.taken + Duration::from_millis(*ms));
        self.trouble = here.announcer.announce().err().map(|error| error.to_string());
        false
    }
}
