//! Rows for the tokens of users, through `register` and `/auth`. Their tables by reason are in `gateway/src/identity`.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::bad_input::row::{BadInput, Reaction, Surface};

const SECRET: &str = "the secret that the application shares with its gateways";
const ISSUER: &str = "https://id.example.org";

/// An application that signs tokens, with a secret and a key pair.
pub(in crate::bad_input) struct TokenIssuer {
    folder: tempfile::TempDir,
}

impl TokenIssuer {
    /// Makes a key pair.
    pub(in crate::bad_input) fn create() -> Self {
        let issuer = Self { folder: tempfile::tempdir().unwrap() };
        issuer.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
        issuer.openssl("pkey -in key.pem -pubout -out public.pem");
        issuer
    }

    /// Returns the settings of a gateway that admits guests and users of this application.
    pub(in crate::bad_input) fn settings(&self) -> [(&'static str, String); 5] {
        [
            ("PARLEY__AUTH__MODE", "mixed".to_owned()),
            ("PARLEY__AUTH__ISSUER", ISSUER.to_owned()),
            ("PARLEY__AUTH__AUDIENCE", "parley".to_owned()),
            ("PARLEY__AUTH__SECRET", SECRET.to_owned()),
            ("PARLEY__AUTH__KEYS", format!("ES256/e={}", self.file("public.pem").display())),
        ]
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn openssl(&self, arguments: &str) {
        let made =
            Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.folder).output().unwrap();
        assert!(made.status.success(), "{arguments}: {made:?}");
    }

    /// Signs claims, with changes to valid ones, by the secret or by the text of the public key.
    fn sign(&self, key_id: Option<&str>, changes: &Value, secret: &str) -> String {
        let mut claims = json!({"iss": ISSUER, "aud": "parley", "sub": "user:1", "exp": now() + 600});
        for (claim, value) in changes.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn rows(issuer: &TokenIssuer) -> Vec<BadInput> {
    let public = std::fs::read_to_string(issuer.file("public.pem")).unwrap();
    let public = public.trim_end();
    let of = |changes: Value| issuer.sign(None, &changes, SECRET);
    let valid = of(json!({}));
    let [header, claims, signature] = valid.split('.').collect::<Vec<_>>().try_into().unwrap();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let tokens = [
        ("no token at all", String::new(), "token_invalid"),
        ("three empty parts", "..".to_owned(), "token_invalid"),
        ("algorithm none", unsigned.clone(), "token_invalid"),
        ("algorithm none with a signature", format!("{unsigned}{signature}"), "token_invalid"),
        ("a signature that is cut off", format!("{header}.{claims}."), "token_invalid"),
        (
            "claims of another token",
            format!("{header}.{}.{signature}", &of(json!({"sub": "root"})).split('.').nth(1).unwrap()),
            "token_invalid",
        ),
        ("the public key as a secret", issuer.sign(Some("e"), &json!({}), public), "token_invalid"),
        ("the public key as a secret without its id", issuer.sign(None, &json!({}), public), "token_invalid"),
        ("another secret", issuer.sign(None, &json!({}), &"x".repeat(40)), "token_invalid"),
        ("a path as key id", issuer.sign(Some("../../../../dev/null"), &json!({}), &"\0".repeat(32)), "token_invalid"),
        ("a query as key id", issuer.sign(Some("e' OR '1'='1"), &json!({}), &"x".repeat(40)), "token_invalid"),
        ("another issuer", of(json!({"iss": "https://evil.example"})), "token_invalid"),
        ("another audience", of(json!({"aud": "elsewhere"})), "token_invalid"),
        ("no audience", of(json!({"aud": []})), "token_invalid"),
        ("an expiry that has passed", of(json!({"exp": now() - 60})), "token_expired"),
        ("an expiry in words", of(json!({"exp": "tomorrow"})), "token_invalid"),
        ("a token of tomorrow", of(json!({"nbf": now() + 86_400})), "token_invalid"),
        ("a user with a line end", of(json!({"sub": "a\nb"})), "token_invalid"),
        ("a user of 256 bytes", of(json!({"sub": "u".repeat(256)})), "token_invalid"),
        ("a nickname with a space", of(json!({"nick": "a b"})), "token_invalid"),
        ("rooms in words", of(json!({"rooms": "#all"})), "token_invalid"),
        ("another nickname", of(json!({"nick": "somebody"})), "token_invalid"),
        ("60 KiB of dots", ".".repeat(60_000), "token_invalid"),
        ("60 KiB of claims", of(json!({"x": "x".repeat(44_000)})), "token_invalid"),
        ("a token of 1 MiB", "x".repeat((1 << 20) - 100), "too_large"),
    ];
    let mut rows = Vec::new();
    for (name, token, code) in tokens {
        let request = json!({"type": "register", "nick": "mallory", "token": token});
        let row = BadInput::request(Surface::Newcomer, name, request, Reaction::Refused(code));
        // A frame that is too large is not read.
        rows.push(if code == "too_large" { BadInput { id: Value::Null, ..row } } else { row });
        if !token.is_empty() && code != "too_large" {
            let lines = format!("/auth {token}\n/nick mallory\n");
            rows.push(BadInput::bytes(Surface::Lines, name, lines, Reaction::Refused(code)));
        }
    }
    rows
}
