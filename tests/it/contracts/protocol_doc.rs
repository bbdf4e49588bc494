//! The contract of gateway/PROTOCOL.md: a gateway answers every example as the page shows.

use harness::{Node, protocol_doc};

#[tokio::test]
async fn every_protocol_example_matches_the_gateway() {
    let page = std::fs::read_to_string(harness::repository().join("gateway/PROTOCOL.md")).unwrap();
    let examples = protocol_doc::examples(&page);
    let (_, rules) = page.split_once("\n```rules\n").unwrap();
    let (rules, _) = rules.split_once("\n```\n").unwrap();
    assert!(examples.len() >= 5, "the page has {} examples only", examples.len());
    for example in examples {
        let gateway = Node::gateway("g1").setting("PARLEY__LIMITS__PROFILE", "default");
        let mut gateway = gateway.setting("PARLEY__ROOMS", rules).start().await;
        example.play(&gateway).await;
        assert_eq!(gateway.end().await, Some(0));
        assert_eq!(gateway.problems(&["settings are valid and have no effect".to_owned()]), Vec::<String>::new());
    }
}
