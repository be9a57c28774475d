//! Who takes what: tables of devices, routes and targets.

use super::*;
use crate::{
    device::Registration,
    id::RecipientId,
    message::parse::{Outside, parse},
};

fn known(kind: &str, environment: &str) -> Known {
    let takes: fn(&Target) -> bool = match kind {
        "log" => |_| true,
        "onesignal" => |it| !matches!(it, Target::Subscription(_)),
        "webpush" => |it| matches!(it, Target::Subscription(_)),
        "fcm" => |it| matches!(it, Target::Token(_) | Target::Topic(_)),
        _ => |it| matches!(it, Target::Token(_)),
    };
    Known { takes, environment: environment.into(), ..Known::universal(kind, Duration::from_secs(30)) }
}

fn routing(default: Option<&str>, names: &[&str], routes: &[Route]) -> Routing {
    let kind = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let environment = |name: &str| if name.ends_with("sandbox") { "sandbox" } else { "production" };
    let provider = |name: &&str| ((*name).to_owned(), known(&kind(name), environment(name)));
    Routing {
        default_provider: default.map(ToOwned::to_owned),
        routes: routes.to_vec(),
        providers: names.iter().map(provider).collect(),
        to_devices: true,
    }
}

fn route(app: &str, platform: &str, providers: &[&str]) -> Route {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let providers = providers.iter().map(|it| (*it).to_owned()).collect();
    Route { app: some(app), platform: some(platform), providers, ..Route::default() }
}

/// `id kind environment app platform`
fn device(text: &str) -> Device {
    let [id, kind, environment, app, platform] = text.split(' ').collect::<Vec<_>>()[..] else { panic!() };
    let token = format!("t-{id}");
    let target = if kind == "webpush" { Target::Subscription(token) } else { Target::Token(token) };
    let at = Timestamp::from_micros(1);
    Device {
        recipient_id: RecipientId::new("u").unwrap(),
        registration: Registration {
            device_id: DeviceId::new(id).unwrap(),
            app: app.into(),
            platform: platform.into(),
            kind: kind.into(),
            environment: environment.into(),
            target,
            locale: None,
            time_zone: None,
            last_seen_at: Some(at),
        },
        created_at: at,
        registered_at: at,
        dead: None,
    }
}

fn message(more: &str) -> Message {
    let body =
        format!(r#"{{"messageId":"m","notificationType":"PUSH","recipientId":"u","title":"t"{more}}}"#);
    parse(body.as_bytes(), Outside::default()).unwrap().message
}

/// The plan in short: `provider>fallback target [device]`.
fn plan(routing: &Routing, more: &str, devices: &[&str]) -> Vec<String> {
    let devices: Vec<_> = devices.iter().map(|it| device(it)).collect();
    let show = |it: &PlannedDelivery| {
        let chain = std::iter::once(&it.provider).chain(&it.fallbacks).cloned().collect::<Vec<_>>().join(">");
        let device = it.device_id.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
        format!("{chain} {}{device}", it.target.canonical())
    };
    match routing.plan(&message(more), &devices, Timestamp::from_micros(5)) {
        Plan::Deliveries(deliveries) => deliveries.iter().map(show).collect(),
        other => vec![format!("{other:?}").to_lowercase()],
    }
}

#[test]
fn targets_of_the_message_go_to_whom_it_names_or_the_routes_say() {
    let plain = routing(Some("log"), &["log", "fcm-main"], &[]);
    for (more, expected) in [
        ("", &["log alias:u"][..]),
        (
            r#","push":{"targets":[{"token":"a"},{"topic":"b"},{"token":"a"}]}"#,
            &["log token:a", "log topic:b"],
        ),
        (r#","push":{"provider":"fcm-main","targets":[{"token":"a"}]}"#, &["fcm-main token:a"]),
        // It is told so by an attempt that fails; nothing is lost in silence.
        (r#","push":{"provider":"fcm-main","targets":[{"alias":"a"}]}"#, &["fcm-main alias:a"]),
        (r#","push":{"provider":"unheard-of"}"#, &["waits"]),
    ] {
        assert_eq!(plan(&plain, more, &[]), expected, "{more}");
    }
    assert_eq!(plan(&routing(None, &["log"], &[]), "", &[]), ["waits"]);
    assert_eq!(plan(&routing(Some("log"), &[], &[]), "", &[]), ["waits"]);
    let twice = routing(None, &["fcm-main", "log"], &[route("", "", &["fcm-main", "log", "fcm-main"])]);
    assert_eq!(plan(&twice, r#","push":{"targets":[{"token":"a"}]}"#, &[]), ["fcm-main>log token:a"]);
    assert_eq!(plan(&twice, r#","push":{"targets":[{"alias":"a"}]}"#, &[]), ["log alias:a"]);
}

#[test]
fn devices_go_to_their_own_services() {
    let names = ["apns-main", "apns-sandbox", "fcm-main", "webpush-main"];
    let routing = routing(Some("fcm-main"), &names, &[]);
    let devices = [
        "browser webpush production shop web",
        "old apns sandbox shop ios",
        "phone apns production shop ios",
        "tablet fcm production shop android",
        "stranger hms production shop android",
    ];
    let expected = [
        "webpush-main subscription:t-browser browser",
        "apns-sandbox token:t-old old",
        "apns-main token:t-phone phone",
        "fcm-main token:t-tablet tablet",
    ];
    assert_eq!(plan(&routing, "", &devices), expected);
    let only = r#","push":{"provider":"apns-main"}"#;
    assert_eq!(plan(&routing, only, &devices), ["apns-main token:t-phone phone"]);
    let explicit = r#","push":{"targets":[{"token":"x"}]}"#;
    assert_eq!(plan(&routing, explicit, &devices), ["fcm-main token:x"], "the message knows better");
}

#[test]
fn the_first_route_that_matches_decides_and_names_who_takes_over() {
    let routes = [
        route("shop", "ios", &["apns-main", "log", "unheard-of"]),
        Route { category: Some("alarm".into()), ..route("", "", &["fcm-alarm", "fcm-main"]) },
        Route { priority: Some(Priority::High), ..route("", "", &["fcm-main", "log"]) },
    ];
    let names = ["apns-main", "fcm-alarm", "fcm-main", "log", "onesignal"];
    let routing = routing(Some("onesignal"), &names, &routes);
    let (phone, tablet) = ("p apns production shop ios", "t fcm production shop android");
    for (more, devices, expected) in [
        ("", &[phone][..], &["apns-main>log token:t-p p"][..]),
        ("", &["p apns production bank ios"], &["apns-main token:t-p p"]),
        ("", &[tablet], &["fcm-alarm token:t-t t"]),
        (r#","category":"alarm""#, &[tablet], &["fcm-alarm>fcm-main token:t-t t"]),
        (r#","priority":"high""#, &[tablet], &["fcm-main>log token:t-t t"]),
        (r#","priority":"normal""#, &[], &["onesignal alias:u"]),
        ("", &[], &["onesignal alias:u"]),
    ] {
        assert_eq!(plan(&routing, more, devices), expected, "{more} {devices:?}");
    }
}

#[test]
fn a_push_that_nobody_could_take_is_told_from_one_that_waits() {
    let main = routing(Some("fcm-main"), &["fcm-main"], &[]);
    assert_eq!(plan(&main, "", &[]), ["nowhere"]);
    assert_eq!(plan(&main, "", &["p apns production shop ios"]), ["nowhere"]);
    let by_route = routing(None, &["fcm-main"], &[route("shop", "", &["fcm-main"])]);
    assert_eq!(plan(&by_route, "", &[]), ["nowhere"]);
    let without = Routing { to_devices: false, ..main };
    assert_eq!(plan(&without, "", &["t fcm production shop android"]), ["waits"]);
    assert!(!without.needs_devices(&message("")));
}
