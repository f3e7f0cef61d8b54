//! The controller against an XDP program and shards that only write down what they are told.

use std::cell::RefCell;
use std::rc::Rc;

use crossbeam::channel;

use super::*;
use crate::cookies::{Order, run};

const ROTATE: Duration = Duration::from_secs(30);
const MASTER: Key = Key(1, 2);
const NOTHING: [Told; 0] = [];

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Keys(Option<Given>),
    Accept(Option<Given>),
    Switch(u32, u32),
    Turned(u32, bool),
    Strong(bool),
}

#[derive(Default)]
struct Outside {
    told: Vec<Told>,
    syns: [u64; 2],
    half_open: [u32; 2],
    bad_cookies: u64,
    /// The shards take no keys.
    deaf: bool,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Outside>>);

impl CookieBackend for Fake {
    fn syns(&self, queue: u32) -> Result<u64, Error> {
        Ok(self.0.borrow().syns[queue as usize])
    }

    fn half_open(&self, queue: u32) -> u32 {
        self.0.borrow().half_open[queue as usize]
    }

    fn bad_cookies(&self) -> Result<u64, Error> {
        Ok(self.0.borrow().bad_cookies)
    }

    fn turned_strong(&self, strong: bool, _cause: Cause) {
        self.0.borrow_mut().told.push(Told::Strong(strong));
    }

    fn give(&self, given: Option<Given>) -> bool {
        let mut outside = self.0.borrow_mut();
        if !outside.deaf {
            outside.told.push(Told::Keys(given));
        }
        !outside.deaf
    }

    fn accept(&mut self, given: Option<Given>) -> Result<(), Error> {
        self.0.borrow_mut().told.push(Told::Accept(given));
        Ok(())
    }

    fn set_switch(&mut self, queue: u32, switch: u32) -> Result<(), Error> {
        self.0.borrow_mut().told.push(Told::Switch(queue, switch));
        Ok(())
    }

    fn turned(&self, queue: u32, on: bool, _cause: Cause) {
        self.0.borrow_mut().told.push(Told::Turned(queue, on));
    }
}

/// A controller of two queues, and both its clocks.
struct Setup {
    controller: Controller<Fake>,
    fake: Fake,
    now: Instant,
    unix: Duration,
}

impl Setup {
    /// In the middle of epoch 10.
    fn new(mode: CookieMode, shared: bool) -> Self {
        let fake = Fake::default();
        let thresholds = Thresholds {
            syn_rate: 20_000,
            half_open: 100,
            bad_cookies: 1000,
            off_after: Duration::from_secs(10),
        };
        let secret = Secret { key: MASTER, shared };
        let epochs = Epochs::new(ROTATE, shared);
        Self {
            controller: Controller::new(fake.clone(), mode, secret, epochs, thresholds, 2),
            fake,
            now: Instant::now(),
            unix: ROTATE * 10 + ROTATE / 2,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.unix += time;
    }

    /// A step after `time`, and what it told.
    fn step_after(&mut self, time: Duration) -> Vec<Told> {
        self.pass(time);
        self.controller.step(self.now, self.unix);
        self.told()
    }

    fn ring(&mut self) -> Vec<Told> {
        self.controller.rung(self.now, self.unix);
        self.told()
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.fake.0.borrow_mut().told)
    }

    fn pause(&self) -> Option<Duration> {
        self.controller.pause(self.now, self.unix)
    }

    /// A flood on queue 1 that turns cookies on.
    fn flood(&mut self) -> Vec<Told> {
        assert_eq!(self.ring(), NOTHING);
        self.fake.0.borrow_mut().syns[1] += 10_000;
        self.step_after(WINDOW)
    }
}

fn given(epoch: u64, next_too: bool, accepted: Accepted) -> Option<Given> {
    Some(Given {
        keys: Keys::new(MASTER, epoch, next_too),
        accepted,
    })
}

fn keys(epoch: u64, next_too: bool) -> Told {
    Told::Keys(given(epoch, next_too, Accepted::All))
}

fn accept(epoch: u64, next_too: bool) -> Told {
    Told::Accept(given(epoch, next_too, Accepted::All))
}

#[test]
fn nothing_is_done_and_nothing_is_due_while_nobody_rings() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    assert_eq!(setup.controller.first_keys(setup.unix), None);
    assert_eq!(setup.step_after(Duration::ZERO), NOTHING);
    assert_eq!(setup.pause(), None);
    assert_eq!(setup.ring(), NOTHING, "few SYNs");
    assert_eq!(setup.pause(), Some(WINDOW));
    assert_eq!(setup.step_after(WINDOW), NOTHING);
    assert_eq!(setup.pause(), None, "quiet again");
}

#[test]
fn a_flood_turns_its_queue_on_keys_first_then_the_slots_then_the_switch() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    let told = setup.flood();
    assert_eq!(
        told,
        [
            keys(10, false),
            accept(10, false),
            Told::Switch(1, cookie_switch::on(0)),
            Told::Turned(1, true)
        ]
    );
    assert_eq!(setup.pause(), Some(POLL_INTERVAL));
}

#[test]
fn half_open_connections_turn_their_queue_on_at_the_ring() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    setup.fake.0.borrow_mut().half_open[0] = 100;
    let told = setup.ring();
    assert_eq!(told.last(), Some(&Told::Turned(0, true)));
}

#[test]
fn no_switch_is_turned_before_every_shard_has_the_keys() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    setup.fake.0.borrow_mut().deaf = true;
    assert_eq!(setup.flood(), NOTHING);
    assert!(setup.pause().is_some_and(|pause| pause <= RETRY));
    setup.fake.0.borrow_mut().deaf = false;
    let told = setup.step_after(RETRY);
    assert_eq!(told.first(), Some(&keys(10, false)));
    assert_eq!(told.last(), Some(&Told::Turned(1, true)));
}

#[test]
fn keys_change_with_the_epoch() {
    let mut setup = Setup::new(CookieMode::Always, false);
    assert_eq!(setup.controller.first_keys(setup.unix), given(10, false, Accepted::All));
    let on = |epoch: u64| {
        let switch = cookie_switch::on(epoch as u32);
        [Told::Switch(0, switch), Told::Switch(1, switch)]
    };
    let told = setup.step_after(Duration::ZERO);
    let [first, second] = on(10);
    assert_eq!(
        told,
        [
            accept(10, false),
            first,
            Told::Turned(0, true),
            second,
            Told::Turned(1, true)
        ]
    );
    for epoch in 11..14 {
        let pause = setup.pause().expect("the next epoch");
        let told = setup.step_after(pause);
        let [first, second] = on(epoch);
        assert_eq!(told, [keys(epoch, false), accept(epoch, false), first, second]);
        assert_eq!(setup.pause(), Some(ROTATE));
    }
}

#[test]
fn a_slot_in_use_is_not_written_after_a_jump_of_the_clock() {
    let mut setup = Setup::new(CookieMode::Always, false);
    setup.step_after(Duration::ZERO);
    let told = setup.step_after(ROTATE * 2);
    let (off, on) = (cookie_switch::OFF, cookie_switch::on(0));
    assert_eq!(
        told,
        [
            keys(12, false),
            Told::Switch(0, off),
            Told::Switch(1, off),
            accept(12, false),
            Told::Switch(0, on),
            Told::Switch(1, on)
        ]
    );
}

#[test]
fn after_a_flood_cookies_go_off_and_the_keys_two_epochs_later() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    setup.flood();
    let mut told = Vec::new();
    for _ in 0..120 {
        told.extend(setup.step_after(POLL_INTERVAL));
    }
    assert_eq!(told, [Told::Switch(1, cookie_switch::OFF), Told::Turned(1, false)]);
    let mut after = Vec::new();
    while let Some(pause) = setup.pause() {
        after.push(setup.step_after(pause));
    }
    assert_eq!(
        after,
        [
            vec![keys(11, false), accept(11, false)],
            vec![Told::Accept(None), Told::Keys(None)]
        ],
        "a cookie of epoch 10 is accepted until the end of epoch 11"
    );
}

#[test]
fn a_shared_secret_keeps_the_shards_ready_without_a_flood() {
    let mut setup = Setup::new(CookieMode::Auto, true);
    assert_eq!(setup.controller.first_keys(setup.unix), given(10, false, Accepted::All));
    let mut told = Vec::new();
    for _ in 0..4 {
        let pause = setup.pause().expect("an epoch to come");
        told.extend(setup.step_after(pause));
    }
    let moments = [(10, true), (11, false), (11, true), (12, false)];
    assert_eq!(
        told,
        moments
            .map(|(epoch, next)| [keys(epoch, next), accept(epoch, next)])
            .concat()
    );
}

#[test]
fn the_end_turns_off_what_is_on() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    setup.flood();
    setup.controller.end();
    assert_eq!(
        setup.told(),
        [Told::Switch(1, cookie_switch::OFF), Told::Turned(1, false)]
    );
}

#[test]
fn bad_cookies_make_them_strong_and_a_second_later_no_others_are_accepted() {
    for mode in [CookieMode::Always, CookieMode::Auto] {
        let mut setup = Setup::new(mode, false);
        let queues: &[u32] = if mode == CookieMode::Always {
            setup.step_after(Duration::ZERO);
            &[0, 1]
        } else {
            setup.flood();
            &[1]
        };
        let switched = |switch| {
            queues
                .iter()
                .map(move |&queue| Told::Switch(queue, switch))
                .collect::<Vec<_>>()
        };
        setup.step_after(WINDOW);
        setup.ring();
        setup.fake.0.borrow_mut().bad_cookies += 9;
        assert_eq!(setup.step_after(WINDOW), NOTHING, "900 a second");
        setup.ring();
        setup.fake.0.borrow_mut().bad_cookies += 10;
        let told = setup.step_after(WINDOW);
        assert_eq!(told[0], Told::Strong(true));
        assert_eq!(told[1..], switched(cookie_switch::on_strong(0)));
        let mut seen = Vec::new();
        for _ in 0..10 {
            setup.fake.0.borrow_mut().bad_cookies += 1000;
            setup.fake.0.borrow_mut().syns[1] += 10_000;
            seen.extend(setup.step_after(POLL_INTERVAL));
        }
        let strong = given(10, false, Accepted::Strong);
        assert_eq!(seen, [Told::Keys(strong), Told::Accept(strong)]);
        let mut seen = Vec::new();
        for _ in 0..110 {
            setup.fake.0.borrow_mut().syns[1] += 10_000;
            seen.extend(setup.step_after(POLL_INTERVAL));
        }
        let back = seen
            .iter()
            .position(|told| *told == Told::Strong(false))
            .expect("they went on");
        let mut usual = vec![keys(10, false), accept(10, false)];
        usual.extend(switched(cookie_switch::on(0)));
        assert_eq!(seen[back + 1..], usual);
    }
}

#[test]
fn the_mode_changes_while_it_runs() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    assert_eq!(setup.step_after(Duration::ZERO), NOTHING);
    let set = |setup: &mut Setup, mode| {
        setup.controller.set_mode(mode, setup.now, setup.unix);
        let mut turned = setup.told();
        turned.retain(|told| matches!(told, Told::Turned(..)));
        turned
    };
    assert_eq!(
        set(&mut setup, CookieMode::Always),
        [Told::Turned(0, true), Told::Turned(1, true)]
    );
    // However quiet it is.
    setup.step_after(Duration::from_secs(60));
    assert_eq!(
        set(&mut setup, CookieMode::Never),
        [Told::Turned(0, false), Told::Turned(1, false)]
    );
    // Whatever comes in.
    setup.fake.0.borrow_mut().syns[1] += 1_000_000;
    setup.ring();
    setup.step_after(Duration::from_millis(100));
    setup.fake.0.borrow_mut().syns[1] += 1_000_000;
    let told = setup.step_after(Duration::from_millis(100));
    assert!(!told.iter().any(|told| matches!(told, Told::Turned(..))), "{told:?}");
    // What came before is not taken for a flood.
    assert_eq!(set(&mut setup, CookieMode::Auto), NOTHING);
    let told = setup.step_after(Duration::from_millis(100));
    assert!(!told.iter().any(|told| matches!(told, Told::Turned(..))), "{told:?}");
    setup.fake.0.borrow_mut().syns[1] += 1_000_000;
    setup.pass(Duration::from_millis(100));
    assert!(setup.ring().contains(&Told::Turned(1, true)));
    // Cookies that are on when the load is to decide go off when it has been quiet for long.
    set(&mut setup, CookieMode::Always);
    assert_eq!(set(&mut setup, CookieMode::Auto), NOTHING);
    let mut turned = Vec::new();
    for _ in 0..150 {
        turned.extend(setup.step_after(Duration::from_millis(100)));
    }
    assert!(turned.contains(&Told::Turned(0, false)) && turned.contains(&Told::Turned(1, false)));
}

#[test]
fn a_controller_that_has_the_program_back_sets_again_what_it_wants() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    let mut expected = setup.flood();
    expected.retain(|told| matches!(told, Told::Accept(_) | Told::Switch(..)));
    assert!(!expected.is_empty());
    setup.controller.take_back(setup.now, setup.unix);
    assert_eq!(
        setup.told(),
        expected,
        "nothing was turned, and the shards have their keys"
    );
}

#[test]
fn the_end_of_a_paused_controller_turns_nothing_off() {
    for is_paused in [false, true] {
        let mut setup = Setup::new(CookieMode::Always, false);
        setup.step_after(Duration::ZERO);
        let (orders, given) = channel::unbounded();
        let (_bell, heard) = channel::bounded(1);
        let (paused, was_paused) = channel::bounded(1);
        if is_paused {
            orders.send(Order::Pause(paused)).expect("room");
        }
        drop(orders);
        run(&mut setup.controller, &heard, &given);
        assert_eq!(was_paused.try_recv().is_ok(), is_paused);
        // By the clock of the machine keys may have changed before.
        let told = setup.told();
        let is_off = told.iter().rev().find_map(|told| match told {
            Told::Switch(0, switch) => Some(*switch == cookie_switch::OFF),
            _ => None,
        });
        assert_eq!(is_off.unwrap_or(false), !is_paused, "{told:?}");
    }
}

#[test]
fn a_mode_that_is_ordered_during_a_pause_counts_after_it() {
    let mut setup = Setup::new(CookieMode::Auto, false);
    let (orders, given) = channel::unbounded();
    let (_bell, heard) = channel::bounded(1);
    let (paused, was_paused) = channel::bounded(2);
    for order in [
        Order::Pause(paused.clone()),
        Order::Mode(CookieMode::Always),
        Order::Pause(paused),
        Order::Resume,
    ] {
        orders.send(order).expect("room");
    }
    drop(orders);
    run(&mut setup.controller, &heard, &given);
    assert_eq!(was_paused.iter().count(), 2);
    let told = setup.told();
    assert!(
        told.contains(&Told::Turned(0, true)) && told.contains(&Told::Turned(1, true)),
        "{told:?}"
    );
}
