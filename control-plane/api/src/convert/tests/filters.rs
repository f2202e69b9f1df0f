//! Filters at random.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*};
use selvedge_model::{
    Filters, FullRegex,
    filter::{
        Abort, BasicAuth, Cors, Delay, DirectResponse, Fault, Fraction, HeaderChange, HeaderChanges,
        HeaderText, LocationPiece, Mirror, OriginMatch, OwnAnswer, PathRewrite, Redirect, RedirectPort,
        RegexRewrite, Rewrite, Sources, UnmatchedPreflights,
    },
    gateway::{UserListForm, UserListName},
    policy::AddressSet,
};

use super::{limits::rate_limit, port_number, time};

pub(super) fn filters(backends: usize) -> impl Strategy<Value = Filters> {
    let first = (option::of(sources()), vec(rate_limit(), 0..2), option::of(cors()), option::of(basic()));
    let before = (first, option::of(any::<u64>()), option::of(fault()), option::of(own_answer()));
    let after = (changes(), rewrite(), mirrors(backends), changes());
    (before, after).prop_map(
        |(
            ((sources, limits, cors, basic), max_body, fault, answer),
            (request_headers, rewrite, mirrors, response_headers),
        )| Filters {
            sources,
            limits,
            cors,
            basic,
            max_body,
            fault,
            answer,
            request_headers,
            rewrite,
            mirrors,
            response_headers,
        },
    )
}

fn basic() -> impl Strategy<Value = BasicAuth> {
    ("[ -~]{0,12}", any::<bool>()).prop_map(|(realm, is_map)| {
        let form = if is_map { UserListForm::Map } else { UserListForm::File };
        BasicAuth { realm, users: UserListName::new("shop", "users", form) }
    })
}

fn sources() -> impl Strategy<Value = Sources> {
    let block = || "10\\.[0-9]\\.0\\.0/(16|32)|fd0[0-9]::/64".prop_map(|text| text.parse().expect("a block"));
    let set = move || vec(block(), 0..3).prop_map(AddressSet::new);
    (option::of(set()), set()).prop_map(|(allowed, denied)| Sources { allowed, denied })
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000_u32).prop_map(|parts| Fraction::of_million(parts).expect("no more than all"))
}

fn mirrors(backends: usize) -> impl Strategy<Value = Vec<Mirror>> {
    let mirror =
        (0..backends.max(1), fraction()).prop_map(|(backend, fraction)| Mirror { backend, fraction });
    vec(mirror, 0..if backends == 0 { 1 } else { 3 })
}

fn changes() -> impl Strategy<Value = HeaderChanges> {
    let name = || "[a-z]([a-z0-9-]{0,8})".prop_map(|name| name.parse().expect("a header name"));
    let value = prop_oneof![
        "[ -$&-~]{0,12}".prop_map(|text| text.parse::<HeaderText>().expect("a value")),
        "[ -~]{0,12}".prop_map(|text| HeaderText::literal(&text).expect("a value")),
        Just("a %REQ(b)% %PROTOCOL%".parse().expect("a value")),
    ];
    let change = (name(), value).prop_map(|(name, value)| HeaderChange { name, value });
    let change = change.boxed();
    (vec(name(), 0..3), vec(change.clone(), 0..3), vec(change, 0..3))
        .prop_map(|(remove, set, add)| HeaderChanges { remove, set, add })
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        ".{0,12}".prop_map(PathRewrite::Full),
        ".{0,12}".prop_map(PathRewrite::PrefixBySegments),
        ".{0,12}".prop_map(PathRewrite::Prefix),
        ("[a-z]{0,4}\\([a-z]\\)", "(/|\\\\0|\\\\1|[a-z]){0,4}").prop_map(|(pattern, substitution)| {
            PathRewrite::Regex(RegexRewrite::new(&pattern, &substitution).expect("a valid rewrite"))
        }),
    ]
}

fn authority() -> impl Strategy<Value = String> {
    "[a-z]{1,8}(:[1-9][0-9]{0,3})?"
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    (option::of(path_rewrite()), option::of(authority())).prop_map(|(path, authority)| Rewrite {
        adds_query: authority.is_none() && path.is_some(),
        path,
        authority,
    })
}

fn own_answer() -> impl Strategy<Value = OwnAnswer> {
    let port = prop_oneof![
        port_number().prop_map(RedirectPort::Explicit),
        Just(RedirectPort::OfScheme),
        Just(RedirectPort::OfAuthority),
        Just(RedirectPort::OfRequest),
        Just(RedirectPort::Default),
    ];
    let redirect =
        (301_u16..309, option::of("https?"), option::of(authority()), port, option::of(path_rewrite()));
    let redirect = redirect.prop_map(|(status, scheme, host, port, path)| {
        OwnAnswer::Redirect(Redirect { status, scheme, host, port, path, pieces: Vec::new() })
    });
    let piece = prop_oneof![
        ".{0,12}".prop_map(LocationPiece::Text),
        Just(LocationPiece::Scheme),
        Just(LocationPiece::Host),
        Just(LocationPiece::Authority),
        Just(LocationPiece::Path),
        Just(LocationPiece::Query),
        Just(LocationPiece::QuestionMark),
        (1_u8..10).prop_map(LocationPiece::Group),
    ];
    let put_together = (301_u16..309, vec(piece, 1..4))
        .prop_map(|(status, pieces)| OwnAnswer::Redirect(Redirect::put_together(status, pieces)));
    let direct = (200_u16..600, vec(any::<u8>(), 0..20))
        .prop_map(|(status, body)| OwnAnswer::Direct(DirectResponse { status, body: body.into() }));
    prop_oneof![redirect, put_together, direct, ".{0,12}".prop_map(OwnAnswer::Unusable)]
}

fn fault() -> impl Strategy<Value = Fault> {
    let delay = (time(), fraction()).prop_map(|(time, fraction)| Delay { time, fraction });
    let abort = (200_u16..600, option::of(0_u8..17), fraction()).prop_map(|(status, grpc, fraction)| Abort {
        status,
        grpc,
        fraction,
    });
    (option::of(delay), option::of(abort)).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = prop_oneof![
        Just(OriginMatch::Any),
        ".{0,12}".prop_map(OriginMatch::Exact),
        ".{0,12}".prop_map(OriginMatch::Prefix),
        "[a-z]{0,4}".prop_map(|source| OriginMatch::Regex(FullRegex::new(&source).expect("an expression"))),
    ];
    let words = || vec("[A-Za-z*-]{1,8}", 0..3);
    let unmatched = prop_oneof![Just(UnmatchedPreflights::Forward), Just(UnmatchedPreflights::Ignore)];
    (vec(origin, 0..3), words(), words(), words(), option::of(any::<u32>()), any::<bool>(), unmatched)
        .prop_map(
            |(
                allow_origins,
                allow_methods,
                allow_headers,
                expose_headers,
                age,
                allow_credentials,
                unmatched,
            )| Cors {
                allow_origins,
                allow_methods,
                allow_headers,
                expose_headers,
                max_age: age.map(|age| Duration::from_secs(age.into())),
                allow_credentials,
                unmatched_preflights: unmatched,
            },
        )
}
