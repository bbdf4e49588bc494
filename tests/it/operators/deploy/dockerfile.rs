//! The Dockerfile: the copied files suffice to build, and each image is small, unprivileged and has a health check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{ChildProgram, Node, Redis, repository};
use serde_json::Value;

use super::settings::EffectiveSettings;

/// An instruction and its text, with comments and continued lines resolved.
type DockerInstruction = (String, String);

/// A build stage: its base, its name, its instructions.
struct BuildStage {
    base: String,
    name: String,
    instructions: Vec<DockerInstruction>,
}

/// The parsed `deploy/Dockerfile`.
pub(super) struct Dockerfile {
    stages: Vec<BuildStage>,
}

impl Dockerfile {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string(repository().join("deploy/Dockerfile")).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        let mut stages: Vec<BuildStage> = Vec::new();
        for line in code.join("\n").replace("\\\n", " ").lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            if word == "FROM" {
                let (base, name) = rest.split_once(" AS ").unwrap_or_else(|| panic!("stage without a name: {line}"));
                stages.push(BuildStage { base: base.to_owned(), name: name.to_owned(), instructions: Vec::new() });
            } else {
                let stage = stages.last_mut().expect("FROM comes first");
                stage.instructions.push((word.to_owned(), rest.trim().to_owned()));
            }
        }
        Self { stages }
    }

    fn stage(&self, name: &str) -> &BuildStage {
        self.stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("no stage {name}"))
    }

    /// Returns the texts of one kind of instruction, those of the base stage first.
    fn instructions(&self, name: &str, word: &str) -> Vec<&str> {
        let stage = self.stage(name);
        let inherits = self.stages.iter().any(|other| other.name == stage.base);
        let mut found = if inherits { self.instructions(&stage.base, word) } else { Vec::new() };
        found.extend(stage.instructions.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str()));
        found
    }

    /// Returns the environment variables of an image.
    pub(super) fn environment(&self, name: &str) -> BTreeMap<String, String> {
        let pairs = self.instructions(name, "ENV").into_iter().flat_map(str::split_whitespace);
        pairs.map(|pair| pair.split_once('=').unwrap()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

#[tokio::test]
async fn images_expose_the_ports_their_programs_use() {
    let dockerfile = Dockerfile::read();
    for (image, keys) in
        [("gateway", ["listen.ws", "listen.tcp", "admin.addr"].as_slice()), ("presence", &["api.addr", "admin.addr"])]
    {
        let copied = format!("--from=build /out/{image} /usr/local/bin/{image}");
        assert!(dockerfile.instructions(image, "COPY").contains(&copied.as_str()), "{image} is not copied");
        assert_eq!(dockerfile.instructions(image, "ENTRYPOINT"), [format!("[\"{image}\"]")]);
        let environment = dockerfile.environment(image);
        let given = environment.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let secrets = [("PARLEY__REDIS__URL_FILE", "/run/secrets/x"), ("PARLEY__API__KEYS_FILE", "/run/secrets/y")];
        // Beyond loopback the API of the presence image needs keys, and gateways have no such setting.
        let secrets = &secrets[..if image == "presence" { 2 } else { 1 }];
        let effective = EffectiveSettings::of(image, given.chain(secrets.iter().copied())).await;
        let ports: Vec<String> = keys.iter().map(|key| effective.port(key).to_string()).collect();
        assert_eq!(dockerfile.instructions(image, "EXPOSE"), [ports.join(" ")], "{image}");
    }
}

#[test]
fn images_are_small_unprivileged_and_health_checked() {
    let dockerfile = Dockerfile::read();
    for image in ["gateway", "presence"] {
        assert_eq!(dockerfile.stage(image).base, "runtime");
        let user = *dockerfile.instructions(image, "USER").last().expect("a user");
        let (user, group) = user.split_once(':').unwrap();
        assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0, "{user}:{group} is root");
        assert_eq!(dockerfile.instructions(image, "STOPSIGNAL"), ["SIGTERM"]);
        let health = dockerfile.instructions(image, "HEALTHCHECK");
        assert!(health.len() == 1 && health[0].ends_with("CMD [\"ready\"]"), "{health:?}");
        assert!(dockerfile.instructions(image, "COPY").contains(&"deploy/docker/ready /usr/local/bin/ready"));
    }
    assert_eq!(dockerfile.stage("runtime").base, "debian:bookworm-slim");
    let toolchain = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let version = toolchain.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
    assert_eq!(dockerfile.stage("build").base, format!("rust:{version}-bookworm"), "the toolchain of Cargo.toml");
}

#[test]
fn image_labels_name_version_and_license() {
    let dockerfile = Dockerfile::read();
    for image in ["gateway", "presence"] {
        let labels = dockerfile.instructions(image, "LABEL").join(" ");
        for (label, value) in [
            ("title", format!("parley-{image}")),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ] {
            let label = format!("org.opencontainers.image.{label}=\"{value}\"");
            assert!(labels.contains(&label), "{image} lacks {label}");
        }
    }
}

#[test]
fn image_build_reads_no_source_of_tests() {
    let dockerfile = Dockerfile::read();
    let copied = dockerfile.instructions("build", "COPY");
    let of_tests: Vec<&&str> =
        copied.iter().filter(|copy| copy.split_whitespace().any(|word| word.starts_with("tests"))).collect();
    assert_eq!(of_tests, [&"tests/Cargo.toml tests/Cargo.toml"], "an edit of a test must not rebuild the programs");
}

/// In the copied sources cargo finds both programs, and the lock file is current.
#[test]
fn copied_sources_are_enough_to_build() {
    let dockerfile = Dockerfile::read();
    let context = tempfile::tempdir().unwrap();
    let ignored = fs::read_to_string(repository().join("deploy/Dockerfile.dockerignore")).unwrap();
    for copy in dockerfile.instructions("build", "COPY") {
        let words: Vec<&str> = copy.split_whitespace().collect();
        let (to, from) = words.split_last().unwrap();
        for name in from {
            assert!(ignored.lines().any(|line| line == format!("!{name}")), "{name} does not reach the builder");
            let target = if *to == "./" { context.path().join(name) } else { context.path().join(to) };
            copy_tree(&repository().join(name), &target);
        }
    }
    let cargo = |arguments: &[&str]| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo).args(arguments).current_dir(context.path()).output().unwrap();
        assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    cargo(&["tree", "--locked", "--offline", "-p", "gateway", "-p", "presence"]);
    let metadata = cargo(&["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets: Vec<&Value> = packages.flat_map(|package| package["targets"].as_array().unwrap()).collect();
    let build = dockerfile.instructions("build", "RUN").join(" ");
    for binary in ["gateway", "presence"] {
        let is_there = targets.iter().any(|target| target["name"] == binary && target["kind"][0] == "bin");
        assert!(is_there, "no binary {binary}");
        assert!(
            build.contains(&format!("-p {binary}")) && build.contains(&format!("target/release/{binary}")),
            "{build}"
        );
    }
}

/// Copies a file or a folder.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    if from.is_file() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        copy_tree(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Runs the script of the health check.
#[tokio::test]
async fn health_check_agrees_with_readyz() {
    let ready = async |admin: String| {
        let script = repository().join("deploy/docker/ready");
        let program = ChildProgram::system(script.to_str().unwrap(), "ready").env("PARLEY__ADMIN__ADDR", &admin);
        program.run(Duration::from_secs(5)).await.code
    };
    let mut redis = Redis::running().await;
    for node in [Node::gateway("g1"), Node::presence("p1")] {
        let node = node.redis(&redis).start().await;
        // As in the image: bound to every address, queried on loopback.
        let admin = format!("0.0.0.0:{}", node.admin().port());
        assert_eq!(ready(admin.clone()).await, Some(0), "{}", node.name());
        redis.kill9();
        node.until_not_ready(Duration::from_secs(10)).await;
        assert_eq!(ready(admin.clone()).await, Some(1), "{}", node.name());
        drop(node);
        assert_eq!(ready(admin).await, Some(1), "no program is running");
        redis.start().await;
    }
}
