//! The Kubernetes manifests: matching names and ports, working probes, and a stop time that covers the drain.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::settings::EffectiveSettings;
use super::yaml::{document, documents, list, text};

const BASE: &str = "deploy/k8s/base";

/// Returns every object of the base.
pub(super) fn objects() -> Vec<Value> {
    let kustomization = document(&format!("{BASE}/kustomization.yaml"));
    list(&kustomization["resources"]).iter().flat_map(|file| documents(&format!("{BASE}/{}", text(file)))).collect()
}

pub(super) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two of {kind} {name}");
    object
}

/// Each program with the ports of its service, by name and setting.
const PROGRAMS: &[(&str, &[(&str, &str)])] =
    &[("gateway", &[("ws", "listen.ws"), ("lines", "listen.tcp")]), ("presence", &[("api", "api.addr")])];

/// Returns the variables of a container; values that the cluster fills in are `x`.
fn environment(container: &Value) -> Vec<(&str, &str)> {
    let variables = list(&container["env"]).iter();
    variables.map(|variable| (text(&variable["name"]), variable["value"].as_str().unwrap_or("x"))).collect()
}

/// Returns the number of the port with this name.
fn port(container: &Value, name: &Value) -> u64 {
    let port = list(&container["ports"]).iter().find(|port| port["name"] == *name);
    port.unwrap_or_else(|| panic!("no port {name}"))["containerPort"].as_u64().unwrap()
}

#[tokio::test]
async fn manifests_set_valid_settings_and_matching_ports() {
    let objects = objects();
    for (program, named_ports) in PROGRAMS {
        let name = format!("parley-{program}");
        let pod = &object(&objects, "Deployment", &name)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let effective = EffectiveSettings::of(program, environment(container)).await;
        effective.assert_is_member();
        let own_name = list(&container["env"]).iter().find(|variable| variable["name"] == "PARLEY__NODE__ID").unwrap();
        assert_eq!(own_name["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name", "each pod has its own node id");

        let service = object(&objects, "Service", &name);
        let ports = list(&service["spec"]["ports"]);
        assert_eq!(ports.len(), named_ports.len(), "{name}: the service must not expose the admin port");
        for (port_name, key) in *named_ports {
            let served =
                ports.iter().find(|port| port["name"] == *port_name).unwrap_or_else(|| panic!("no {port_name}"));
            assert_eq!(port(container, &served["targetPort"]), effective.port(key), "{name} {port_name}");
        }
        for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
            let request = &container[probe]["httpGet"];
            assert_eq!(request["path"], path, "{name} {probe}");
            assert_eq!(port(container, &request["port"]), effective.port("admin.addr"), "{name} {probe}");
        }
        assert_eq!(port(container, &"admin".into()), effective.port("admin.addr"), "{name}: the scraped port");

        let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let stop = list(&container["lifecycle"]["preStop"]["exec"]["command"]);
        assert_eq!(text(&stop[0]), "sleep", "{name}");
        let needed = text(&stop[1]).parse::<u64>().unwrap() + effective.grace() + 5;
        assert!(given >= needed, "{name} is killed after {given} s, preStop and drain take {needed} s");
    }
}

#[test]
fn selectors_match_labels_and_disruptions_are_limited() {
    let objects = objects();
    for (program, _) in PROGRAMS {
        let name = format!("parley-{program}");
        let deployment = &object(&objects, "Deployment", &name)["spec"];
        let labels = &deployment["template"]["metadata"]["labels"];
        assert!(labels.as_object().is_some_and(|labels| !labels.is_empty()), "{name}");
        let budget = &object(&objects, "PodDisruptionBudget", &name)["spec"];
        let service = &object(&objects, "Service", &name)["spec"];
        let spread = &deployment["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"];
        for selector in [&deployment["selector"], &budget["selector"], spread] {
            assert_eq!(&selector["matchLabels"], labels, "{name}");
        }
        assert_eq!(&service["selector"], labels, "{name}");
        assert_eq!(budget["maxUnavailable"], 1, "{name}");
        assert!(deployment["replicas"].as_u64().unwrap() > 1, "{name}: a rolling update needs two replicas");
        assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "{name}");
    }
    assert_eq!(objects.len(), 3 * PROGRAMS.len(), "an object without a test");
}

#[test]
fn pods_have_least_rights_and_their_secret() {
    let objects = objects();
    for (program, _) in PROGRAMS {
        let pod = &object(&objects, "Deployment", &format!("parley-{program}"))["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(text(&container["securityContext"]["capabilities"]["drop"][0]), "ALL");

        let url = environment(container).into_iter().find(|(key, _)| *key == "PARLEY__REDIS__URL_FILE").unwrap().1;
        let mount = &container["volumeMounts"][0];
        assert_eq!(url, format!("{}/redis_url", text(&mount["mountPath"])), "{program}");
        let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        assert_eq!(volume["secret"]["secretName"], "parley-redis", "{program}");
    }
}

/// Runs kustomize where `kubectl` is installed; the tests above do not need it.
#[test]
fn kustomize_builds_the_manifests_unchanged() {
    let built = match Command::new("kubectl").args(["kustomize", BASE]).current_dir(harness::repository()).output() {
        Ok(built) => built,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("kubectl: {error}"),
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut built = serde_saphyr::from_multiple::<Value>(&String::from_utf8(built.stdout).unwrap()).unwrap();
    for object in &mut built {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        assert_eq!(labels.remove("app.kubernetes.io/part-of"), Some("parley".into()));
        if labels.is_empty() {
            object["metadata"].as_object_mut().unwrap().remove("labels");
        }
    }
    let name = |object: &Value| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
    let built: BTreeMap<String, Value> = built.into_iter().map(|object| (name(&object), object)).collect();
    let objects = objects();
    assert_eq!(built.len(), objects.len());
    for object in &objects {
        assert_eq!(built.get(&name(object)), Some(object), "kustomize adds only the label");
    }
}

#[test]
fn manifests_name_images_of_this_version() {
    let kustomization = document(&format!("{BASE}/kustomization.yaml"));
    let objects = objects();
    for (program, _) in PROGRAMS {
        let image = format!("parley-{program}");
        let container = &object(&objects, "Deployment", &image)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(text(&container["image"]), format!("{image}:{}", env!("CARGO_PKG_VERSION")));
        let tag = list(&kustomization["images"]).iter().find(|known| known["name"] == image.as_str()).unwrap();
        assert_eq!(text(&tag["newTag"]), env!("CARGO_PKG_VERSION"));
    }
}
