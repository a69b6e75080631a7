//! What a room is made from: plain data, which shrinks.

use hearth_event::RoomVersion;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::Dag;

/// A room, before there is one.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The room's version.
    pub version: RoomVersion,
    /// 2 to 6.
    pub servers: u8,
    /// 3 to 12; the first is the creator.
    pub users: u8,
    /// From version 12 on the second user is a creator too.
    pub more_creators: bool,
    /// What happens after the room was founded.
    pub steps: Vec<Step>,
}

/// One event, or two that know nothing of each other.
#[derive(Clone, Debug)]
pub struct Step {
    /// What happens.
    pub act: Act,
    /// Who does it; if the rules forbid that, the next user whom they allow it.
    pub who: u8,
    /// After what.
    pub on: Parents,
    /// When.
    pub clock: Clock,
    /// If nobody may do it, it is sent all the same and is rejected; otherwise nothing happens.
    pub insist: bool,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
}

/// What happens. Numbers stand for users, values and events by their remainder.
#[derive(Clone, Debug)]
pub enum Act {
    /// `m.room.message`.
    Say,
    /// A state event that no rule knows: which type, which state key.
    Note(u8, u8),
    /// A change of one's own membership.
    Own(Own),
    /// A change of another's membership.
    Member(To, u8),
    /// A change of the power levels: which field, of whom, to what.
    Levels(u8, u8, u8),
    /// `m.room.join_rules`.
    Rules(u8),
    /// `m.room.third_party_invite` with this token.
    Offer(u8),
    /// An invitation by token: which, of whom, and whether the signature is forged.
    Claim(u8, u8, bool),
    /// `m.room.redaction` of some event.
    Redact(u16),
    /// Two users act against each other at once, the other is this one.
    Fight(u8),
}

/// A change of one's own membership.
#[derive(Clone, Copy, Debug)]
pub enum Own {
    /// `join`
    Join,
    /// `join` by the word of a user.
    JoinBy(u8),
    /// `leave`
    Leave,
    /// `knock`
    Knock,
}

/// A change of another's membership.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// `invite`
    Invite,
    /// `leave`: a kick, or the end of a ban or an invitation.
    Leave,
    /// `ban`
    Ban,
}

/// What a step follows.
#[derive(Clone, Copy, Debug)]
pub enum Parents {
    /// The newest event.
    Newest,
    /// One end of the room.
    Leaf(u8),
    /// The ends of the room whose bits are set.
    Merge(u16),
    /// Any event: a branch on old state.
    Old(u16),
}

/// The sender's clock, by the newest event's.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The same millisecond.
    Tie,
    /// Later.
    Later(u8),
    /// Earlier.
    Earlier(u8),
}

/// What is wrong with an event.
#[derive(Clone, Copy, Debug)]
pub enum Flaw {
    /// One of its auth events is left out.
    LacksAuth(u8),
    /// It names an auth event that it does not need.
    NeedlessAuth(u16),
    /// Its auth events are from the state before some other event.
    OtherAuth(u16),
    /// `depth` is not what it should be.
    Depth(u8),
    /// A value of the content is of another type.
    Content(u8),
}

impl Recipe {
    /// The room.
    pub fn room(&self) -> Dag {
        crate::make::room(self)
    }
}

/// Rooms of all versions.
pub fn rooms() -> impl Strategy<Value = Recipe> {
    recipe(5..60)
}

/// Rooms of all versions with that many steps.
pub fn recipe(steps: std::ops::Range<usize>) -> impl Strategy<Value = Recipe> {
    let versions: Vec<RoomVersion> = RoomVersion::all().collect();
    (select(versions), 2..=6_u8, 3..=12_u8, any::<bool>(), vec(step(), steps)).prop_map(
        |(version, servers, users, more_creators, steps)| Recipe { version, servers, users, more_creators, steps },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let insist = prop::bool::weighted(0.12);
    let flaw = prop_oneof![19 => Just(None), 1 => flaw().prop_map(Some)];
    // Whoever has power does most.
    let who = prop_oneof![3 => 0..3_u8, 2 => any::<u8>()];
    (act(), who, parents(), clock(), insist, flaw).prop_map(|(act, who, on, clock, insist, flaw)| Step {
        act,
        who,
        on,
        clock,
        insist,
        flaw,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let byte = any::<u8>;
    let to = select(vec![To::Invite, To::Leave, To::Ban, To::Ban]);
    let own = prop_oneof![
        3 => Just(Own::Join),
        3 => byte().prop_map(Own::JoinBy),
        2 => Just(Own::Leave),
        1 => Just(Own::Knock),
    ];
    prop_oneof![
        6 => Just(Act::Say),
        12 => (byte(), byte()).prop_map(|(kind, key)| Act::Note(kind, key)),
        14 => own.prop_map(Act::Own),
        18 => (to, byte()).prop_map(|(to, whom)| Act::Member(to, whom)),
        20 => (byte(), byte(), byte()).prop_map(|(field, whom, level)| Act::Levels(field, whom, level)),
        10 => byte().prop_map(Act::Rules),
        4 => byte().prop_map(Act::Offer),
        4 => (byte(), byte(), prop::bool::weighted(0.2)).prop_map(|(token, whom, forged)| Act::Claim(token, whom, forged)),
        5 => any::<u16>().prop_map(Act::Redact),
        8 => byte().prop_map(Act::Fight),
    ]
}

fn parents() -> impl Strategy<Value = Parents> {
    prop_oneof![
        35 => Just(Parents::Newest),
        30 => any::<u8>().prop_map(Parents::Leaf),
        25 => any::<u16>().prop_map(Parents::Merge),
        10 => any::<u16>().prop_map(Parents::Old),
    ]
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![2 => Just(Clock::Tie), 2 => (1..4_u8).prop_map(Clock::Later), 1 => (1..4_u8).prop_map(Clock::Earlier)]
}

fn flaw() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        1 => any::<u8>().prop_map(Flaw::LacksAuth),
        1 => any::<u16>().prop_map(Flaw::NeedlessAuth),
        1 => any::<u16>().prop_map(Flaw::OtherAuth),
        1 => any::<u8>().prop_map(Flaw::Depth),
        2 => any::<u8>().prop_map(Flaw::Content),
    ]
}
