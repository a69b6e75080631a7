//! Every section and setting: names, types, defaults and words.

use std::path::PathBuf;
use std::time::Duration;

use hearth_base::{ByteSize, LogFormat, Network, Rate, special_networks};

use crate::federation::OldSigningKey;
use crate::load::Input;
use crate::policy::PolicyText;
use crate::value::{Address, FileMode, LogFilter, RegistrationMode, SecretFile, Setting, TokenPlace, TrustedProxy};
use crate::{SectionSpec, Shown, Spec};

/// Declares sections: one struct each, [`crate::Settings`]' reader, and [`ALL`] for the documents.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $ty:ty = $how:ident($value:expr);
            )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $ty, )+
            }

            impl $Section {
                pub(crate) fn read(input: &mut Input<'_>) -> Option<Self> {
                    // All are read before any is missed, so that all problems are told at once.
                    $( let $key = sections!(@read $how, input, stringify!($section), stringify!($key), $ty, $value); )+
                    Some(Self { $( $key: $key?, )+ })
                }
            }
        )+

        /// Every section, in the order of the documents.
        pub(crate) const ALL: &[SectionSpec] = &[$(
            SectionSpec {
                name: stringify!($section),
                doc: &[$($section_doc),*],
                settings: &[$(
                    Spec {
                        key: stringify!($key),
                        doc: &[$($doc),*],
                        kind: <$ty as Setting>::KIND,
                        default: || sections!(@shown $how, $ty, $value),
                    },
                )+],
            },
        )+];
    };
    (@read default, $input:ident, $section:expr, $key:expr, $ty:ty, $value:expr) => {
        $input.read::<$ty>($section, $key).unwrap_or_else(|| Some($value))
    };
    (@read required, $input:ident, $section:expr, $key:expr, $ty:ty, $value:expr) => {
        $input.read::<$ty>($section, $key).unwrap_or_else(|| $input.missing($section, $key, $value))
    };
    (@read unset, $input:ident, $section:expr, $key:expr, $ty:ty, $value:expr) => {
        $input.read::<$ty>($section, $key).unwrap_or(Some(None))
    };
    (@shown default, $ty:ty, $value:expr) => { Shown::Default(<$ty as Setting>::to_toml(&$value)) };
    (@shown required, $ty:ty, $value:expr) => { Shown::Required($value.to_owned()) };
    (@shown unset, $ty:ty, $value:expr) => { Shown::Unset($value.to_owned()) };
}

sections! {
    /// Who this server is. The name and the signing key are its identity for ever: neither can be
    /// changed once users exist.
    server: Server {
        /// The server's name: the part after the colon in `@user:example.org`. Usually the bare
        /// domain, also when the server itself runs on another host. The store remembers it and
        /// refuses to open under another name.
        name: String = required("\"example.org\"");
        /// Where clients reach this server, if that is not obvious from the name. Answered to clients
        /// that ask `/.well-known/matrix/client`; leave it out if your web server answers that.
        public_base_url: Option<String> = unset("\"https://matrix.example.org\"");
        /// Where other servers reach this server, as `host:port`. Answered to servers that ask
        /// `/.well-known/matrix/server`; leave it out if your web server answers that, or if they find it
        /// by the name alone.
        federation_address: Option<String> = unset("\"matrix.example.org:443\"");
        /// File with the signing key. Left out, the key is `signing.key` in the storage directory and
        /// is made at the first start. The server refuses a file that others may read.
        signing_key_file: Option<SecretFile> = unset("\"credential:signing-key\"");
    }

    /// Where the server listens. On anything but your own machine clients need TLS: either a reverse
    /// proxy speaks it for the server, or the server does (`client_tls`).
    listen: Listen {
        /// Addresses for clients or their reverse proxy, without TLS: each `address:port`, or `unix:` and
        /// the path of a Unix socket, such as `"unix:/run/hearth/hearth.sock"`.
        client: Vec<Address> = default(vec![Address::loopback(8008)]);
        /// Addresses for clients with TLS, each `address:port`. They take `tls_certificate` and `tls_key`.
        client_tls: Vec<Address> = default(Vec::new());
        /// File with the certificate and those of the authorities between it and the root, in PEM. It
        /// and the key are read again on SIGHUP and every minute; a pair that is not usable is told in
        /// the log, and the old one stays.
        tls_certificate: Option<PathBuf> = unset("\"/etc/hearth/fullchain.pem\"");
        /// File with the private key of that certificate, in PEM. systemd copies credentials when the
        /// unit starts: a renewed key in one is seen after a restart only.
        tls_key: Option<SecretFile> = unset("\"/etc/hearth/privkey.pem\"");
        /// Who may connect to Unix sockets: the mode of their files.
        unix_mode: FileMode = default(FileMode(0o660));
        /// Address for metrics (`/metrics`, Prometheus) and health (`/health`), or `"off"`. Keep it off
        /// the internet: metrics tell how busy you are.
        metrics: Option<Address> = default(Some(Address::loopback(9009)));
        /// Connections that may be open at once; more wait in the kernel's queue. Each takes a file
        /// descriptor: the process raises its own limit for them, and allows fewer where the system
        /// does not let it (`ulimit -Hn`).
        max_connections: u32 = default(4096);
        /// Whether answers above a kilobyte are compressed (gzip) for clients that accept it. Turn it
        /// off where the reverse proxy does that.
        compress: bool = default(true);
        /// Reverse proxies that are believed when their `X-Forwarded-For` tells a client's address:
        /// addresses, ranges such as `10.0.0.0/8`, and `"unix"` for everybody who may open a Unix
        /// socket of this server. Name your proxy here: the addresses of `[rate_limits]` are those of
        /// the peers otherwise, and behind a proxy all clients would share one.
        trusted_proxies: Vec<TrustedProxy> = default(Vec::new());
    }

    /// The embedded store.
    storage: Storage {
        /// Directory of the database, on a local disk whose sync can be trusted. Made at the first
        /// start, for the server's user only.
        path: PathBuf = default(PathBuf::from("/var/lib/hearth"));
        /// Memory for blocks read from disk, and for `write_buffers`. More helps when the rooms in use do not fit.
        block_cache: ByteSize = default(ByteSize::mib(64));
        /// How much of `block_cache` writes may take that have not been sorted into tables yet. More means fewer,
        /// larger flushes and a longer replay after a crash.
        write_buffers: ByteSize = default(ByteSize::mib(32));
    }

    /// Who may make an account.
    registration: Registration {
        /// `"closed"`: nobody. `"token"`: whoever has a registration token (`hearth
        /// registration-token create`, or `tokens_file`). `"open"`: anybody who reaches the server,
        /// which on the internet means spammers within days.
        mode: RegistrationMode = default(RegistrationMode::Closed);
        /// File with registration tokens, one a line (lines that begin with `#` are skipped). At each
        /// start, those that the store does not know yet are added to it, for any number of accounts.
        tokens_file: Option<SecretFile> = unset("\"credential:registration-tokens\"");
        /// Whether there are guests: accounts without name and password, that may only look into rooms
        /// which let guests join. On the internet they are made by spammers, too.
        guests: bool = default(false);
        /// Policies that whoever registers has to accept. Name each again for each of its languages.
        policies: Vec<PolicyText> = default(Vec::new());
        /// File with a secret of at least 8 characters. Who knows it can make accounts, also of
        /// administrators and also where registration is closed, with
        /// `/_synapse/admin/v1/register` and the scripts that use it. Left out, nobody can.
        shared_secret_file: Option<SecretFile> = unset("\"credential:registration-secret\"");
    }

    /// Passwords and log-ins.
    accounts: Accounts {
        /// Memory that checking one password takes (Argon2id `m`). More makes stolen hashes dearer to
        /// guess. Each hash worker keeps this much.
        argon2_memory: ByteSize = default(ByteSize::mib(19));
        /// Passes over that memory (Argon2id `t`).
        argon2_iterations: u32 = default(2);
        /// Lanes (Argon2id `p`).
        argon2_parallelism: u32 = default(1);
        /// Threads that check passwords. They are apart from those that answer requests: a rush of
        /// log-ins makes log-ins wait, not messages.
        hash_workers: u32 = default(1);
        /// Log-ins that may wait for a hash worker; further ones are told to come back later.
        hash_queue: u32 = default(256);
        /// Characters that a new password must have. Longer ones take longer to guess.
        min_password_length: u32 = default(8);
        /// `"header"`: a client's access token is in the `Authorization` header. `"header-or-query"`:
        /// it may also be in the address (`?access_token=`), where proxies log it; the specification
        /// discourages that, and only very old programs need it.
        access_token_in: TokenPlace = default(TokenPlace::Header);
        /// User IDs of this server's administrators. They can lock and suspend others and send notices.
        admins: Vec<String> = default(Vec::new());
        /// How long an access token works that comes with a refresh token; only clients that ask for
        /// one get one. Shorter is safer and asks more often.
        access_token_lifetime: Duration = default(Duration::from_secs(300));
        /// How long a token works with which somebody who is logged in logs in on another device, or
        /// `"off"`. It is given out after asking for the password, and logs in once.
        login_token_lifetime: Option<Duration> = default(None);
    }

    /// Whom users and other servers can ask about this server. Answered at
    /// `/.well-known/matrix/support`; leave all out if your web server answers that, or nobody.
    support: Support {
        /// A page with help.
        page: Option<String> = unset("\"https://example.org/support\"");
        /// User ID of who answers questions.
        admin_user: Option<String> = unset("\"@admin:example.org\"");
        /// E-mail address of who answers questions.
        admin_email: Option<String> = unset("\"admin@example.org\"");
        /// User ID of who hears of security problems.
        security_user: Option<String> = unset("\"@security:example.org\"");
        /// E-mail address of who hears of security problems.
        security_email: Option<String> = unset("\"security@example.org\"");
    }

    /// What administrators have to say to single users, in a room of the server for each. See
    /// `/_synapse/admin/v1/send_server_notice`.
    server_notices: ServerNotices {
        /// Who sends them: the part of the user ID before the colon. Nobody can register it.
        sender: String = default("_server".to_owned());
        /// What the sender is called.
        sender_name: String = default("Server Notices".to_owned());
        /// What the rooms are called.
        room_name: String = default("Server Notices".to_owned());
    }

    /// Application services: bridges to other networks, and bots, that act as users of their own.
    application_services: ApplicationServices {
        /// Their registrations, in the specification's format: files, or directories of files that end in
        /// `.yaml`. Whoever can read one can act as the users it names. Read at the start only. An
        /// expression in `namespaces` holds for names that begin with what it matches; look-around and
        /// back-references are not supported.
        registrations: Vec<PathBuf> = default(Vec::new());
    }

    /// Presence: who is online, idle or away.
    presence: Presence {
        /// Whether users see it of those they share rooms with. It is kept in memory and told within a
        /// budget, so it costs little; turn it off where nobody should know when others are there.
        enabled: bool = default(true);
        /// Whether other servers are told when users of this one are there, as far as they share rooms.
        tell_other_servers: bool = default(true);
    }

    /// Rooms.
    rooms: Rooms {
        /// Version of new rooms when the client does not say. Clients can ask for any of 1 to 12.
        default_version: String = default("12".to_owned());
        /// Longest delay of delayed events, which clients in calls use to be seen leaving even when
        /// their connection breaks. `"off"`: there are no delayed events.
        max_event_delay: Option<Duration> = default(Some(Duration::from_secs(24 * 60 * 60)));
        /// Delayed events that one user may have scheduled at a time.
        max_delayed_events: u32 = default(100);
    }

    /// Other servers. They find this one by its name; `hearth doctor` tells whether they can.
    federation: Federation {
        /// Whether this server talks to others. Off, rooms are for its own users only.
        enabled: bool = default(true);
        /// Addresses that this server never connects to when it looks for other servers, whoever asks it
        /// to: anybody can write any name. The default is all that is not on the internet.
        denied_networks: Vec<Network> = default(special_networks());
        /// Exceptions from `denied_networks`: private networks where other servers are.
        allowed_networks: Vec<Network> = default(Vec::new());
        /// File with certificates of authorities, in PEM, that are trusted for other servers besides the
        /// usual ones. For private networks; the internet needs none.
        extra_authorities: Option<PathBuf> = unset("\"/etc/hearth/authorities.pem\"");
        /// Servers that are asked for the keys of servers which do not answer any more, to verify what
        /// those once signed. They are believed: name only such as you trust.
        key_servers: Vec<String> = default(Vec::new());
        /// Keys that this server signed with before, for others to verify what it signed then: each the
        /// key's ID, the public key in base64 and when it was last used, in milliseconds since 1970. To
        /// change the signing key: note ID and public key (`/_matrix/key/v2/server` shows both), stop the
        /// server, move the file of the key away but do not delete it, put a new one in its place (a line
        /// `ed25519 VERSION SEED`: a version never used before, and 32 random bytes in base64), add the old
        /// key here, and start the server.
        old_signing_keys: Vec<OldSigningKey> = default(Vec::new());
        /// Whether requests pass that do not say which server they are for. Only servers from before 2022
        /// send such, and one that another server received could be passed on to this one.
        accept_without_destination: bool = default(false);
        /// How long a connection to another server may take to be made.
        connect_timeout: Duration = default(Duration::from_secs(10));
        /// How long another server may take to answer.
        request_timeout: Duration = default(Duration::from_secs(60));
        /// The same when a user joins a room: the answer has all of its state.
        join_timeout: Duration = default(Duration::from_secs(300));
        /// Largest answer to a join. The largest rooms have some 200 MB; it is held in memory.
        max_join_response: ByteSize = default(ByteSize::mib(256));
        /// How long a server is left alone that did not answer. It doubles with each failure, and ends when
        /// the server is heard from.
        retry_first: Duration = default(Duration::from_secs(60));
        /// The longest that a server is left alone before users' requests may try it again.
        retry_longest: Duration = default(Duration::from_secs(60 * 60));
        /// The longest that a server which does not answer is left alone before what waits for it is sent
        /// again. What it missed by then comes as the latest event of each room.
        delivery_retry_longest: Duration = default(Duration::from_secs(7 * 24 * 60 * 60));
        /// How often one server may ask for anything. A server is many users, and one that was away asks for
        /// much at once. `rate_limits.enabled` turns this off as well.
        requests: Option<Rate> = default(Some(Rate::per_second(50, 500)));
        /// The same for what is much work: states, auth chains, history, joins, the directory.
        heavy_requests: Option<Rate> = default(Some(Rate::per_second(5, 100)));
        /// How often one address may send requests whose signature is wrong, or by a server that is new here, and
        /// ask for other servers' keys: all of that makes this server ask others. If yours is behind a proxy,
        /// name it in `listen.trusted_proxies`, or one broken server uses up what all others have.
        unproven_requests: Option<Rate> = default(Some(Rate::per_second(10, 400)));
        /// Whether servers may join and leave rooms by the endpoints that were replaced in 2019
        /// (`v1/send_join`, `v1/send_leave`).
        first_handshakes: bool = default(true);
        /// Public keys in base64 that are believed nothing, whichever server has them: keys that somebody
        /// has published or lost. Whatever was signed with one does not count any more, however old it is.
        distrusted_keys: Vec<String> = default(Vec::new());
        /// Whether other servers, and so everybody, may read the directory of public rooms.
        public_rooms: bool = default(false);
    }

    /// Bounds for what clients send. The defaults suit nearly everybody.
    limits: Limits {
        /// Largest request body. An event may have 64 KiB; keys and account data a little more.
        request_body: ByteSize = default(ByteSize::kib(256));
        /// How deep JSON may be nested.
        json_depth: u32 = default(64);
        /// Largest request head: the request line and all headers.
        request_head: ByteSize = default(ByteSize::kib(16));
        /// How long a client may take to send a request's head.
        header_deadline: Duration = default(Duration::from_secs(10));
        /// How long a client may take to send a request's body.
        body_deadline: Duration = default(Duration::from_secs(60));
        /// How long a connection may stay open without a request, or without accepting our answer.
        idle_deadline: Duration = default(Duration::from_secs(75));
        /// Requests that one HTTP/2 connection may have open at once.
        http2_streams: u32 = default(100);
        /// Longest time `/sync` waits for news, whatever the client asks for.
        sync_timeout: Duration = default(Duration::from_secs(300));
        /// Longest time a shutdown waits for requests to finish; the store is closed after that.
        shutdown: Duration = default(Duration::from_secs(8));
    }

    /// How often clients may do things, as a rate and a burst: `"30/m burst 10"` is 10 at once after a
    /// pause, and 30 more in each minute (`s`, `m`, `h`). Who does more is told to wait (429). Each can
    /// be `"off"`. IPv6 addresses count by their first 64 bits; see also `listen.trusted_proxies`.
    rate_limits: RateLimits {
        /// Whether there are any.
        enabled: bool = default(true);
        /// Attempts to log in, for each address.
        login: Option<Rate> = default(Some(Rate::per_minute(30, 30)));
        /// Wrong passwords for one account, from anywhere. Whoever guesses locks out the owner's new
        /// log-ins too, but only for as long as the guessing goes on.
        failed_login_account: Option<Rate> = default(Some(Rate::per_minute(5, 10)));
        /// Wrong passwords from one address, for any account.
        failed_login_address: Option<Rate> = default(Some(Rate::per_minute(10, 20)));
        /// Requests to register, for each address. Making one account takes two or three.
        registration: Option<Rate> = default(Some(Rate::per_minute(2, 12)));
        /// Questions whether a user name is free or a registration token valid, for each address.
        lookup: Option<Rate> = default(Some(Rate::per_second(2, 30)));
        /// Messages, redactions and state that a user sends.
        sending: Option<Rate> = default(Some(Rate::per_second(10, 100)));
        /// Rooms that a user joins, knocks at or makes.
        joins: Option<Rate> = default(Some(Rate::per_minute(20, 30)));
        /// Users whom a user invites, also while making a room.
        invites: Option<Rate> = default(Some(Rate::per_minute(30, 60)));
        /// Reports of rooms, events and users that a user makes.
        reports: Option<Rate> = default(Some(Rate::per_minute(6, 20)));
        /// Everything else that a user asks for.
        user: Option<Rate> = default(Some(Rate::per_second(50, 500)));
        /// All requests from one address, of users or of nobody. Many people may share one.
        address: Option<Rate> = default(Some(Rate::per_second(200, 2000)));
        /// Connections that one address may have open, which is no rate: more are closed at once. Never more than
        /// half of `listen.max_connections`, whatever this says. Proxies that `listen.trusted_proxies` names may have
        /// all, and so may whoever connects to a Unix socket.
        address_connections: u32 = default(512);
    }

    /// Logs, on standard error. They hold no tokens, no bodies and no message content.
    log: Log {
        /// How much: `"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`, or directives by module such
        /// as `"info,hearth_rooms=debug"`. Each request is one line at `debug`, failed ones at `info`.
        level: LogFilter = default(LogFilter::info());
        /// `"text"`: a line for people. `"json"`: an object a line, for machines.
        format: LogFormat = default(LogFormat::Text);
    }
}
