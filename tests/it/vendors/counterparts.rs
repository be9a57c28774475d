//! The counterparts themselves: what a vendor's own client sends them they take, and what breaks the
//! vendor's rules they refuse. Otherwise a green run against them proves nothing.

use serde_json::{Value, json};

use crate::support::{
    counterparts::{Counterpart, Keys, fcm_schema},
    http_client,
    script::{node, python},
    wiremock::Wiremock,
};

/// Apple's rules, by the client that most Node services use.
#[tokio::test]
async fn the_apns_double_takes_what_node_apn_sends() {
    let double = Wiremock::playing_at_root("apns.json", &[]).await;
    let keys = Keys::p256();
    let module = "import apn from '@parse/node-apn';
        const [port, key] = process.argv.slice(2);
        const provider = new apn.Provider({
            token: { key: Buffer.from(key), keyId: 'ABC123DEFG', teamId: 'DEF123GHIJ' },
            address: '127.0.0.1', port: Number(port), rejectUnauthorized: false,
        });
        const send = async (token, fields) => {
            const expiry = 1900000000;
            const note = new apn.Notification({ alert: { title: 't', body: 'b' }, topic: 'com.example.app', expiry,
                id: '8a3b2f10-7c1e-4d55-8b6f-2e10aa000001', priority: 10, pushType: 'alert', ...fields });
            const { sent, failed } = await provider.send(note, token);
            return [sent.length, failed[0]?.status, failed[0]?.response?.reason];
        };
        console.log(JSON.stringify([
            await send('0a'.repeat(32)),
            await send('dead' + '0a'.repeat(30)),
            await send('0a'.repeat(32), { topic: 'com.example.other' }),
            await send('not-hex'),
        ]));
        await provider.shutdown();";
    let printed = node(module, &[&double.tls_port().to_string(), &keys.private_pem], &[]).await;
    let outcomes: Value = serde_json::from_str(&printed).unwrap();
    let refused = json!([0, 400, "BadRequestByDouble"]);
    assert_eq!(outcomes, json!([[1, null, null], [0, 410, "Unregistered"], refused, refused]));

    let seen = double.seen("/3/device/(0a)+").await;
    assert_eq!(seen[0].json()["aps"]["alert"], json!({"title": "t", "body": "b"}));
    let bearer = seen[0].header("authorization").unwrap().split_once(' ').unwrap().1;
    let claims = es256_claims(bearer, &keys.public_pem).await;
    assert_eq!(
        (&claims["header"]["kid"], &claims["claims"]["iss"]),
        (&json!("ABC123DEFG"), &json!("DEF123GHIJ"))
    );
}

/// Header and claims of a token that `PyJWT` verified.
pub(super) async fn es256_claims(token: &str, public_pem: &str) -> Value {
    let program = "import json, jwt, sys
token, key = sys.argv[1:]
claims = jwt.decode(token, key, algorithms=['ES256'], options={'verify_aud': False})
print(json.dumps({'header': jwt.get_unverified_header(token), 'claims': claims}))";
    serde_json::from_str(&python(program, &[token, public_pem]).await).unwrap()
}

/// Expo's rules, by Expo's own client.
#[tokio::test]
async fn the_expo_double_takes_what_expo_sends() {
    let double = Wiremock::playing("expo.json", &[]).await;
    let module = "import { Expo } from 'expo-server-sdk';
        const expo = new Expo({ accessToken: 'expo-secret' });
        const to = (name) => `ExponentPushToken[${name}]`;
        const text = 'x'.repeat(2000); // long enough to be sent compressed
        const messages = Array.from({ length: 250 }, (_, n) => ({ to: to(`t-${n}`), title: 't', body: text,
            data: { n }, ttl: 60, priority: 'high', sound: 'default', channelId: 'c' }));
        const tickets = [];
        for (const chunk of expo.chunkPushNotifications(messages)) {
            tickets.push(...await expo.sendPushNotificationsAsync(chunk));
        }
        const odd = await expo.sendPushNotificationsAsync([{ to: to('dead-1') }, { to: to('late-1') }]);
        const receipts = {};
        for (const chunk of expo.chunkPushNotificationReceiptIds([...tickets, odd[1]].map((it) => it.id))) {
            Object.assign(receipts, await expo.getPushNotificationReceiptsAsync(chunk));
        }
        const refused = await expo.sendPushNotificationsAsync([{ to: to('x'), titel: 't' }]).catch((it) => it.code ?? `${it} ${it.cause}`);
        console.log(JSON.stringify([tickets, odd[0].details.error, receipts['t-249'], receipts['late-1'].details, refused]));";
    let printed = node(module, &[], &[("EXPO_BASE_URL", &double.url(""))]).await;
    let mut outcomes: Value = serde_json::from_str(&printed).unwrap();
    let tickets: Vec<_> = (0..250).map(|it| json!({"status": "ok", "id": format!("t-{it}")})).collect();
    assert_eq!(outcomes[0].take(), json!(tickets));
    let gone = json!({"error": "DeviceNotRegistered"});
    assert_eq!(outcomes, json!([null, "DeviceNotRegistered", {"status": "ok"}, gone, "VALIDATION_ERROR"]));
}

/// Google's rules for the exchange of tokens, by Google's own client.
#[tokio::test]
async fn the_token_double_takes_what_google_auth_sends() {
    let keys = Keys::rsa();
    let double = Counterpart::google_token(&keys.public_pem, "key-1", "ledger@demo.example").await;
    let account = |keys: &Keys, key_id: &str, email: &str| {
        json!({"type": "service_account", "project_id": "demo", "private_key_id": key_id,
            "private_key": keys.private_pem, "client_email": email, "token_uri": double.url("/token")})
        .to_string()
    };
    let program = "import json, sys, urllib3
from google.auth.transport.urllib3 import Request
from google.auth.exceptions import RefreshError
from google.oauth2.service_account import Credentials
def token(account, scope):
    credentials = Credentials.from_service_account_info(json.loads(account), scopes=[scope])
    try:
        credentials.refresh(Request(urllib3.PoolManager()))
    except RefreshError as error:
        return error.args[1]['error']
    return credentials.token
messaging = 'https://www.googleapis.com/auth/firebase.messaging'
right, *wrong = sys.argv[1:]
tokens = [token(right, messaging), token(right, 'https://www.googleapis.com/auth/drive')]
print(json.dumps(tokens + [token(it, messaging) for it in wrong]))";
    let accounts = [
        account(&keys, "key-1", "ledger@demo.example"),
        account(&Keys::rsa(), "key-1", "ledger@demo.example"),
        account(&keys, "key-2", "ledger@demo.example"),
        account(&keys, "key-1", "other@demo.example"),
    ];
    let printed = python(program, &accounts.each_ref().map(String::as_str)).await;
    let tokens: Value = serde_json::from_str(&printed).unwrap();
    let refused = "invalid_grant";
    assert_eq!(tokens, json!(["ya29.token-1", refused, refused, refused, refused]));
}

/// Google's published description of FCM decides; nothing of it is lost on the way to the double.
#[tokio::test]
async fn the_fcm_double_takes_what_the_description_says_and_nothing_else() {
    let double = Wiremock::playing("fcm.json", &[("schema", fcm_schema())]).await;
    let client = http_client();
    let mut outcomes = Vec::new();
    for message in [
        json!({"token": "t", "notification": {"title": "t", "body": "b", "image": "https://img.example/1"},
            "data": {"id": "1"}, "android": {"ttl": "3600s", "priority": "HIGH", "collapseKey": "c"},
            "apns": {"headers": {"apns-priority": "10"}, "payload": {"aps": {"badge": 1}}}}),
        json!({"topic": "news"}),
        json!({}),
        json!({"token": "t", "topic": "news"}),
        json!({"token": "t", "data": {"id": 1}}),
        json!({"token": "t", "android": {"ttl": "3600"}}),
        json!({"token": "t", "android": {"priority": "high"}}),
        json!({"token": "t", "android": {"collapse_key": "c"}}),
        json!({"token": "t", "notification": {"titel": "t"}}),
        json!({"token": "dead-1"}),
    ] {
        let request = client.post(double.url("/v1/projects/demo/messages:send")).bearer_auth("ya29.token-1");
        let answer = request.json(&json!({"message": message})).send().await.unwrap();
        outcomes.push(answer.status().as_u16());
    }
    assert_eq!(outcomes, [200, 200, 400, 400, 400, 400, 400, 400, 400, 404]);
    let send = async |token: &str, body: &Value| {
        let request = client.post(double.url("/v1/projects/demo/messages:send")).bearer_auth(token);
        request.json(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("another", &json!({"message": {"token": "t"}})).await, 400);
    assert_eq!(send("ya29.token-1", &json!({"message": {"token": "t"}, "validate_only": true})).await, 400);
}

/// Both receivers take what the library of the other signs, and nothing else.
#[tokio::test]
async fn the_receivers_of_webhooks_believe_what_their_libraries_sign() {
    let (secret, other) =
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let sign = |secret: &str| {
        let module = "import { Webhook } from 'standardwebhooks';
            const now = new Date();
            const signature = new Webhook(process.argv[2]).sign('m-1', now, '{\"a\":1}');
            console.log(JSON.stringify([String(Math.floor(now / 1000)), signature]));";
        let secret = secret.to_owned();
        async move { serde_json::from_str::<[String; 2]>(&node(module, &[&secret], &[]).await).unwrap() }
    };
    let signed = [sign(secret).await, sign(other).await];
    for receiver in [Counterpart::python_webhooks(secret).await, Counterpart::node_webhooks(secret).await] {
        let mut outcomes = Vec::new();
        for ([timestamp, signature], body) in
            [(&signed[0], r#"{"a":1}"#), (&signed[0], r#"{"a":2}"#), (&signed[1], r#"{"a":1}"#)]
        {
            let request = http_client().post(receiver.url("/")).header("webhook-id", "m-1");
            let request =
                request.header("webhook-timestamp", timestamp).header("webhook-signature", signature);
            outcomes.push(request.body(body).send().await.unwrap().status().as_u16());
        }
        assert_eq!(outcomes, [200, 401, 401]);
        let remembered = receiver.remembered().await;
        assert_eq!(remembered["verified"], json!([{"id": "m-1", "body": {"a": 1}}]));
        assert_eq!(remembered["refused"].as_array().unwrap().len(), 2);
    }
}
