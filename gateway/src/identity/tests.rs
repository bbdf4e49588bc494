#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use presence::model::codes::ErrorCode;
use presence::model::{Nick, RoomName};
use serde_json::{Value, json};

use super::jwks::parse_set;
use super::keys::{KeySet, VerificationKey};
use super::*;

const SECRET: &str = "a secret of at least 32 bytes, and of 64 for the longest of all.";

/// A key pair of an issuer: its private half, and its public half as PEM and as a row of a set.
pub(super) struct Issuer {
    algorithm: Algorithm,
    private: EncodingKey,
    public: String,
    row: Value,
}

impl Issuer {
    fn secret(algorithm: Algorithm) -> Self {
        let row = json!({"kty": "oct", "k": BASE64URL_NOPAD.encode(SECRET.as_bytes())});
        Self {
            algorithm,
            private: EncodingKey::from_secret(SECRET.as_bytes()).unwrap(),
            public: SECRET.to_owned(),
            row,
        }
    }

    fn rsa(size: KeySize) -> Self {
        let pair = RsaKeyPair::generate(size).unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
        let number = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let row = json!({
            "kty": "RSA",
            "n": number(n.big_endian_without_leading_zero()),
            "e": number(e.big_endian_without_leading_zero()),
        });
        let private = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm: Algorithm::RS256,
            private: EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
            row,
        }
    }

    pub(super) fn ec() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        Self {
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
            public: pem("PUBLIC KEY", public.as_ref()),
            row: json!({"kty": "EC", "crv": "P-256", "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y)}),
        }
    }

    fn ed() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
        Self {
            algorithm: Algorithm::EdDSA,
            private: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
            public: pem("PUBLIC KEY", public.as_ref()),
            row: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
        }
    }

    pub(super) fn material(&self, id: Option<&str>) -> KeyMaterial {
        let algorithm = TokenAlgorithm::of_header(self.algorithm).unwrap();
        KeyMaterial { algorithm, id: id.map(str::to_owned), text: self.public.clone() }
    }

    /// Returns the row of a set of keys.
    pub(super) fn row(&self, id: &str) -> Value {
        let mut row = self.row.clone();
        let name = TokenAlgorithm::of_header(self.algorithm).unwrap().name();
        for (field, value) in [("use", "sig"), ("alg", name), ("kid", id)] {
            row[field] = json!(value);
        }
        row
    }

    /// Signs a token with these claims.
    pub(super) fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        self.sign_with(&Header { kid: id.map(str::to_owned), ..Header::new(self.algorithm) }, claims)
    }

    fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.private).unwrap()
    }

    /// Signs these texts, whatever they are.
    fn sign_texts(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<u8> = BASE64.encode(der).into_bytes().chunks(64).collect::<Vec<_>>().join(&b'\n');
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", String::from_utf8(lines).unwrap())
}

static RSA: LazyLock<Issuer> = LazyLock::new(|| Issuer::rsa(KeySize::Rsa2048));
pub(super) static EC: LazyLock<Issuer> = LazyLock::new(Issuer::ec);
static ED: LazyLock<Issuer> = LazyLock::new(Issuer::ed);
static HMAC: LazyLock<Issuer> = LazyLock::new(|| Issuer::secret(Algorithm::HS256));

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns valid claims, with changes: `null` removes a claim.
pub(super) fn claims(changes: &Value) -> Value {
    let mut claims = json!({"iss": "https://id.example.org", "aud": "parley", "sub": "user:1", "exp": now() + 60});
    for (claim, value) in changes.as_object().unwrap() {
        claims[claim] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

pub(super) fn policy() -> TokenPolicy {
    TokenPolicy { issuer: "https://id.example.org".to_owned(), audience: vec!["other".to_owned(), "parley".to_owned()] }
}

fn verifier(keys: &[KeyMaterial]) -> TokenVerifier {
    let keys = keys.iter().map(|material| VerificationKey::of_material(material).unwrap()).collect();
    TokenVerifier::new(policy(), KeySet::new(keys), None)
}

#[tokio::test]
async fn every_algorithm_verifies_its_tokens() {
    for issuer in [&*RSA, &*EC, &*ED] {
        let grant = verifier(&[issuer.material(None)]).verify(&issuer.sign(None, &claims(&json!({})))).await.unwrap();
        assert_eq!(grant.user.as_str(), "user:1", "{:?}", issuer.algorithm);
    }
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let issuer = Issuer::secret(algorithm);
        let verifier = verifier(&[issuer.material(Some("k"))]);
        assert!(verifier.verify(&issuer.sign(Some("k"), &claims(&json!({})))).await.is_ok(), "{algorithm:?}");
    }
}

#[tokio::test]
async fn claims_become_the_grant() {
    let claims = claims(&json!({
        "nick": "Ann", "name": "Ann Smith", "roles": ["admin"], "tags": ["a", "b"], "aud": ["parley", "x"],
        "rooms": [{"match": "#team-*", "may": ["join", "send", "fly"]}, {"match": "#News", "may": ["join", "history"]}],
        "unknown": {"deep": [1]}
    }));
    let grant = verifier(&[HMAC.material(None)]).verify(&HMAC.sign(None, &claims)).await.unwrap();
    assert_eq!(grant.nick.as_ref().map(ToString::to_string).as_deref(), Some("Ann"));
    assert_eq!((grant.name.as_deref(), &*grant.roles[0], grant.tags.len()), (Some("Ann Smith"), "admin", 2));
    assert_eq!(grant.expires, claims["exp"].as_u64().unwrap());
    let may = |room: &str, right| grant.may(&RoomName::parse(room).unwrap(), right);
    assert!(may("#TEAM-a", RoomRight::Join) && may("#team-a", RoomRight::Send) && may("#news", RoomRight::History));
    assert!(!may("#team-a", RoomRight::History) && !may("#news", RoomRight::Send) && !may("#a", RoomRight::Join));
    assert!(!may("#team-a", RoomRight::Moderate));
}

#[tokio::test]
async fn token_without_rooms_allows_every_room() {
    let verifier = verifier(&[HMAC.material(None)]);
    let room = RoomName::parse("#any").unwrap();
    let grant = verifier.verify(&HMAC.sign(None, &claims(&json!({})))).await.unwrap();
    assert!(grant.may(&room, RoomRight::Join) && grant.may(&room, RoomRight::Send));
    let grant = verifier.verify(&HMAC.sign(None, &claims(&json!({"rooms": []})))).await.unwrap();
    assert!(!grant.may(&room, RoomRight::Join));
}

#[tokio::test]
async fn invalid_claims_are_refused_by_reason() {
    use TokenFault::{BadClaim, Expired, NotYetValid, WrongAudience, WrongIssuer};
    let verifier = verifier(&[HMAC.material(None)]);
    let long = "x".repeat(256);
    for (changes, expected) in [
        (json!({"iss": "https://evil.example.org"}), WrongIssuer),
        (json!({"iss": null}), BadClaim("iss")),
        (json!({"iss": 1}), BadClaim("iss")),
        (json!({"aud": "else"}), WrongAudience),
        (json!({"aud": ["else"]}), WrongAudience),
        (json!({"aud": []}), WrongAudience),
        (json!({"aud": null}), BadClaim("aud")),
        (json!({"exp": now() - 6}), Expired),
        (json!({"exp": 0}), Expired),
        (json!({"exp": null}), BadClaim("exp")),
        (json!({"exp": "tomorrow"}), BadClaim("exp")),
        (json!({"exp": -1}), BadClaim("exp")),
        (json!({"nbf": now() + 10}), NotYetValid),
        (json!({"nbf": "x"}), BadClaim("nbf")),
        (json!({"iat": now() + 10}), BadClaim("iat")),
        (json!({"iat": now() * 1000}), BadClaim("iat")),
        (json!({"iat": 1e300}), BadClaim("iat")),
        (json!({"sub": null}), BadClaim("sub")),
        (json!({"sub": ""}), BadClaim("sub")),
        (json!({"sub": 7}), BadClaim("sub")),
        (json!({"sub": "a\nb"}), BadClaim("sub")),
        (json!({"sub": long}), BadClaim("sub")),
        (json!({"nick": "a b"}), BadClaim("nick")),
        (json!({"name": "a\u{202E}b"}), BadClaim("name")),
        (json!({"nick": 7}), BadClaim("of this gateway")),
        (json!({"rooms": "#a"}), BadClaim("of this gateway")),
        (json!({"rooms": ["#a"]}), BadClaim("of this gateway")),
        (json!({"rooms": [{"match": "team"}]}), BadClaim("of this gateway")),
        (json!({"rooms": [{"match": "team", "may": []}]}), BadClaim("rooms")),
        (json!({"roles": "admin"}), BadClaim("of this gateway")),
    ] {
        assert_eq!(verifier.verify(&HMAC.sign(None, &claims(&changes))).await, Err(expected), "{changes}");
    }
    // A value that is no list limits nothing elsewhere; here it must not.
    let null = HMAC.sign_texts(r#"{"alg":"HS256"}"#, &claims(&json!({})).to_string().replace('}', r#","rooms":null}"#));
    assert_eq!(verifier.verify(&null).await, Err(BadClaim("of this gateway")));
    for changes in [json!({"exp": now() - 2}), json!({"nbf": now() + 2}), json!({"exp": 9e9})] {
        assert!(verifier.verify(&HMAC.sign(None, &claims(&changes))).await.is_ok(), "{changes}");
    }
}

#[tokio::test]
async fn forged_tokens_are_refused_by_reason() {
    use TokenFault::{Malformed, TooLarge, UnknownKey, WrongAlgorithm, WrongSignature};
    let keys = [RSA.material(Some("r")), EC.material(Some("e")), HMAC.material(None)];
    let verifier = verifier(&keys);
    let valid = claims(&json!({}));
    let text = valid.to_string();
    let good = EC.sign(Some("e"), &valid);
    assert!(verifier.verify(&good).await.is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    // The public key of RS256 as the secret of HS256.
    let confused = Issuer {
        algorithm: Algorithm::HS256,
        private: EncodingKey::from_secret(RSA.public.as_bytes()).unwrap(),
        public: String::new(),
        row: json!({}),
    };
    let unsigned = |header: &str| {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        format!("{}.{}.", part(header), part(&text))
    };
    let twice = |claim: &str| HMAC.sign_texts(r#"{"alg":"HS256"}"#, &text.replacen('{', &format!("{{{claim},"), 1));
    let big =
        HMAC.sign_texts(r#"{"alg":"HS256"}"#, &text.replacen('{', &format!(r#"{{"x":"{}","#, "x".repeat(1 << 20)), 1));
    let header = |header: &str| HMAC.sign_texts(header, &text);
    let stranger = Issuer::ec();
    for (name, token, expected) in [
        ("empty", String::new(), Malformed),
        ("no dots", "x".repeat(100), Malformed),
        ("two parts", format!("{}.{}", parts[0], parts[1]), Malformed),
        ("four parts", format!("{good}.x"), Malformed),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), WrongSignature),
        ("padding", format!("{good}="), Malformed),
        ("space", format!(" {good}"), Malformed),
        ("alg none", unsigned(r#"{"alg":"none"}"#), Malformed),
        ("alg None", unsigned(r#"{"alg":"None","kid":"e"}"#), Malformed),
        ("alg missing", unsigned(r#"{"kid":"e"}"#), Malformed),
        ("HS256 with the public key", confused.sign(Some("r"), &valid), WrongAlgorithm),
        ("HS256 without its key id", confused.sign(None, &valid), WrongSignature),
        ("RS512 of the key", header(r#"{"alg":"RS512","kid":"r"}"#), WrongAlgorithm),
        ("ES256 under the id of RSA", EC.sign(Some("r"), &valid), WrongAlgorithm),
        ("another key", stranger.sign(Some("e"), &valid), WrongSignature),
        ("unknown key, no unnamed one of it", EC.sign(Some("x"), &valid), WrongAlgorithm),
        ("path as key id", HMAC.sign_texts(r#"{"alg":"ES256","kid":"../../dev/null"}"#, &text), WrongAlgorithm),
        ("query as key id", HMAC.sign_texts(r#"{"alg":"ES256","kid":"e' OR 1=1"}"#, &text), WrongAlgorithm),
        ("unknown crit", header(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#), Malformed),
        ("empty crit", header(r#"{"alg":"HS256","crit":[]}"#), Malformed),
        ("b64 false", header(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#), Malformed),
        ("alg twice", header(r#"{"alg":"HS256","alg":"HS256"}"#), Malformed),
        ("kid twice", header(r#"{"alg":"HS256","kid":"a","kid":"b"}"#), Malformed),
        ("key in the header", header(r#"{"alg":"ES256","jwk":{"kty":"oct","k":"AA"},"kid":"e"}"#), WrongSignature),
        ("sub twice", twice(r#""sub":"root""#), Malformed),
        ("exp twice", twice(r#""exp":99999999999"#), Malformed),
        ("iss twice", twice(r#""iss":"x""#), Malformed),
        ("claims are a list", HMAC.sign_texts(r#"{"alg":"HS256"}"#, "[1]"), Malformed),
        ("claims are no JSON", HMAC.sign_texts(r#"{"alg":"HS256"}"#, "x"), Malformed),
        ("1 MiB", big, TooLarge),
        ("1 MiB of nothing", "x".repeat(1 << 20), TooLarge),
    ] {
        let refused = verifier.verify(&token).await;
        assert_eq!(refused, Err(expected), "{name}");
        let text = refused.unwrap_err().code().message();
        assert!(!text.contains("key") && expected.code() == ErrorCode::TokenInvalid, "{name}: {text}");
    }
    let only_named = verifier_of_set(&json!({"keys": [EC.row("e")]}));
    for id in [None, Some("x"), Some("E"), Some("")] {
        assert_eq!(only_named.verify(&EC.sign(id, &valid)).await, Err(UnknownKey), "{id:?}");
    }
    assert_eq!(only_named.verify(&twice(r#""nick":"a","nick":"b""#)).await, Err(UnknownKey));
}

fn verifier_of_set(set: &Value) -> TokenVerifier {
    TokenVerifier::new(policy(), parse_set(&set.to_string(), true).unwrap(), None)
}

#[tokio::test]
async fn repeated_claim_of_this_gateway_is_refused() {
    let text = claims(&json!({"nick": "a"})).to_string().replace('}', r#","nick":"b"}"#);
    let verifier = verifier(&[HMAC.material(None)]);
    let token = HMAC.sign_texts(r#"{"alg":"HS256"}"#, &text);
    assert_eq!(verifier.verify(&token).await, Err(TokenFault::BadClaim("of this gateway")));
}

#[tokio::test]
async fn rotated_keys_serve_together() {
    let (old, new) = (Issuer::secret(Algorithm::HS256), Issuer::ec());
    let other_secret = KeyMaterial { text: SECRET.to_uppercase(), ..old.material(None) };
    let verifier = verifier(&[other_secret, old.material(None), EC.material(Some("2025")), new.material(Some("2026"))]);
    for (name, token) in [
        ("second unnamed key", old.sign(None, &claims(&json!({})))),
        ("old named key", EC.sign(Some("2025"), &claims(&json!({})))),
        ("new named key", new.sign(Some("2026"), &claims(&json!({})))),
        ("key id that no key has", old.sign(Some("legacy"), &claims(&json!({})))),
    ] {
        assert!(verifier.verify(&token).await.is_ok(), "{name}");
    }
    let crossed = new.sign(Some("2025"), &claims(&json!({})));
    assert_eq!(verifier.verify(&crossed).await, Err(TokenFault::WrongSignature));
}

#[test]
fn weak_or_wrong_keys_are_refused() {
    let weak = Issuer::rsa_of_pem(RSA_1024);
    let of = |algorithm, text: &str| KeyMaterial { algorithm, id: None, text: text.to_owned() };
    for (name, material) in [
        ("short secret", of(TokenAlgorithm::Hs256, &SECRET[..31])),
        ("secret of HS256 for HS512", of(TokenAlgorithm::Hs512, &SECRET[..63])),
        ("empty secret", of(TokenAlgorithm::Hs256, "")),
        ("RSA with 1024 bits", weak),
        ("RSA for ES256", of(TokenAlgorithm::Es256, &RSA.public)),
        ("EC for EdDSA", of(TokenAlgorithm::EdDsa, &EC.public)),
        ("EC for RS256", of(TokenAlgorithm::Rs256, &EC.public)),
        ("private key", of(TokenAlgorithm::Es256, "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")),
        ("no PEM", of(TokenAlgorithm::Es256, "x")),
    ] {
        assert!(VerificationKey::of_material(&material).is_err(), "{name}");
        assert!(!format!("{material:?}").contains("secret"), "{name}");
    }
}

/// A public key of 1024 bits, which no longer counts as strong.
const RSA_1024: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCoDi6Y9sXVOJp8Y2Lv2GGb7dcS\n\
    tluR5POUtMMFYTjkXuQq8RDtdhuDm7ESYrI2ZrsN6T9GITYmyW9veMCEYpJ3iM/s\n\
    IDrxBxJ1K7UlHBLDGbbJI31CL9GqHNCp7gyVEt1jsfO+9nGYJPnkxgcYrbtpVoWC\n\
    9/y9NdSVFt60vGU5LQIDAQAB\n\
    -----END PUBLIC KEY-----\n\
";

impl Issuer {
    fn rsa_of_pem(text: &str) -> KeyMaterial {
        KeyMaterial { algorithm: TokenAlgorithm::Rs256, id: None, text: text.to_owned() }
    }
}

#[test]
fn set_keeps_only_keys_for_signatures() {
    let secret = HMAC.row("h");
    let changed = |field: &str, value: Value| {
        let mut row = EC.row("e");
        row[field] = value;
        row
    };
    let usable = |rows: Value, secrets: bool| parse_set(&json!({"keys": rows}).to_string(), secrets).map(|_| ());
    let none = Err("the set has no key with \"use\": \"sig\" of a known algorithm");
    for (name, row, expected) in [
        ("good", EC.row("e"), Ok(())),
        ("good RSA", RSA.row("r"), Ok(())),
        ("good Ed25519", ED.row("d"), Ok(())),
        ("alg left out", changed("alg", json!(null)), Ok(())),
        ("two algorithms: RS256 and a curve", changed("alg", json!("RS256")), none),
        ("two algorithms: HS256 and a curve", changed("alg", json!("HS256")), none),
        ("encryption", changed("use", json!("enc")), none),
        ("no use", changed("use", json!(null)), none),
        ("only for signing", changed("key_ops", json!(["sign"])), none),
        ("another curve", changed("crv", json!("P-384")), none),
        ("short coordinates", changed("x", json!("AA")), none),
        ("no coordinates", changed("x", json!(null)), none),
        ("secret in public", secret.clone(), none),
        ("not an object", json!(7), none),
    ] {
        assert_eq!(usable(json!([row]), false), expected, "{name}");
    }
    assert_eq!(usable(json!([secret]), true), Ok(()), "secret in a file");
    assert_eq!(usable(json!([7, EC.row("e")]), false), Ok(()), "one good key of two");
    assert!(usable(json!(vec![EC.row("e"); 101]), false).is_err());
    assert!(usable(json!(vec![EC.row("e"); 100]), false).is_ok());
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, &" ".repeat(300 * 1024)] {
        assert!(parse_set(text, true).is_err(), "{text:.20}");
    }
}

fn gate(mode: AuthMode) -> IdentityGate {
    let secret = HMAC.material(None);
    IdentityGate::new(&AuthConfig::of_secret(mode, policy(), secret))
}

#[tokio::test]
async fn mode_decides_about_clients_without_token() {
    let nick = Nick::parse("ann").unwrap();
    let guest = Ok(Introduction { nick: Some(nick.clone()), token: None });
    for (mode, token, expected) in [
        (AuthMode::Open, None, guest.clone()),
        (AuthMode::Open, Some("x"), guest.clone()),
        (AuthMode::Mixed, None, guest),
        (AuthMode::Mixed, Some("x"), Err(TokenFault::Malformed)),
        (AuthMode::Token, None, Err(TokenFault::Missing)),
        (AuthMode::Token, Some("x"), Err(TokenFault::Malformed)),
    ] {
        assert_eq!(gate(mode).introduce(token, Some(nick.clone())).await, expected, "{mode} {token:?}");
    }
    for mode in [AuthMode::Mixed, AuthMode::Token] {
        let token = HMAC.sign(None, &claims(&json!({})));
        let introduced = gate(mode).introduce(Some(&token), Some(nick.clone())).await.unwrap();
        assert_eq!(introduced.token.unwrap().grant.user.as_str(), "user:1");
    }
}

#[tokio::test]
async fn nickname_of_the_token_wins() {
    let nick = |text: &str| Some(Nick::parse(text).unwrap());
    let gate = gate(AuthMode::Token);
    let named = HMAC.sign(None, &claims(&json!({"nick": "Ann"})));
    let free = HMAC.sign(None, &claims(&json!({})));
    for (token, given, expected) in [
        (&named, nick("ann"), Ok(nick("Ann"))),
        (&named, None, Ok(nick("Ann"))),
        (&named, nick("bob"), Err(TokenFault::WrongNick)),
        (&free, nick("bob"), Ok(nick("bob"))),
        (&free, None, Ok(None)),
    ] {
        let introduced = gate.introduce(Some(token), given.clone()).await;
        assert_eq!(introduced.map(|introduced| introduced.nick), expected, "{given:?}");
    }
}

#[tokio::test]
async fn lifetime_ends_with_the_token() {
    let gate = gate(AuthMode::Token);
    for (exp, low, high) in [(now() + 60, 64, 66), (now() - 2, 2, 4), (u64::MAX, 1 << 40, u64::MAX)] {
        let token = HMAC.sign(None, &claims(&json!({"exp": exp})));
        let introduced = gate.introduce(Some(&token), Nick::parse("ann").ok()).await.unwrap();
        let seconds = introduced.token.unwrap().lifetime.as_secs();
        assert!((low..=high).contains(&seconds), "{exp}: {seconds}");
    }
}

#[test]
fn refusal_codes_match_their_reasons() {
    let wait = Duration::from_secs(1);
    for (fault, code) in [
        (TokenFault::Missing, ErrorCode::TokenRequired),
        (TokenFault::Expired, ErrorCode::TokenExpired),
        (TokenFault::NoKeys { retry_after: wait }, ErrorCode::Unavailable),
        (TokenFault::WrongNick, ErrorCode::TokenInvalid),
        (TokenFault::UnknownKey, ErrorCode::TokenInvalid),
    ] {
        assert_eq!(fault.code(), code);
    }
}
