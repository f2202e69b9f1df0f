//! Fields of policies of who may connect to whom.

use super::{
    Proof::{Nothing, Reported, Test},
    Row,
};

pub(super) const ROWS: &[Row] = &[
    ("GlobalNetworkPolicy", "spec.tier", Test("tiers_and_labels_of_service_accounts_decide_as_in_calico")),
    (
        "GlobalNetworkPolicy",
        "spec.order",
        Test("policies_are_asked_in_their_order_and_those_of_kubernetes_at_1000"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.selector",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.types[]",
        Test("a_policy_is_for_the_directions_that_it_has_rules_for_unless_it_says_so"),
    ),
    ("GlobalNetworkPolicy", "spec.namespaceSelector", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "GlobalNetworkPolicy",
        "spec.serviceAccountSelector",
        Test("service_accounts_are_selected_by_their_labels"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.doNotTrack",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.preDNAT", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("GlobalNetworkPolicy", "spec.applyOnForward", Nothing("it is about hosts")),
    ("GlobalNetworkPolicy", "spec.performanceHints[]", Nothing("it is for Calico itself")),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].ipVersion",
        Test("what_calico_refuses_is_refused_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.ingress[].metadata.**", Nothing("for people")),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("GlobalNetworkPolicy", "spec.egress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.egress[].metadata.**", Nothing("for people")),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    ("NetworkPolicy", "spec.tier", Test("tiers_are_asked_by_their_order_and_pass_leads_to_the_next")),
    (
        "NetworkPolicy",
        "spec.order",
        Test("policies_are_asked_in_their_order_and_those_of_kubernetes_at_1000"),
    ),
    (
        "NetworkPolicy",
        "spec.selector",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "NetworkPolicy",
        "spec.types[]",
        Test("a_policy_is_for_the_directions_that_it_has_rules_for_unless_it_says_so"),
    ),
    ("NetworkPolicy", "spec.namespaceSelector", Test("what_calico_refuses_is_refused_with_its_field")),
    ("NetworkPolicy", "spec.serviceAccountSelector", Test("service_accounts_are_selected_by_their_labels")),
    ("NetworkPolicy", "spec.doNotTrack", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("NetworkPolicy", "spec.preDNAT", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("NetworkPolicy", "spec.applyOnForward", Nothing("it is about hosts")),
    ("NetworkPolicy", "spec.performanceHints[]", Nothing("it is for Calico itself")),
    (
        "NetworkPolicy",
        "spec.ingress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("NetworkPolicy", "spec.ingress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "NetworkPolicy",
        "spec.ingress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("NetworkPolicy", "spec.ingress[].metadata.**", Nothing("for people")),
    (
        "NetworkPolicy",
        "spec.ingress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("NetworkPolicy", "spec.egress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "NetworkPolicy",
        "spec.egress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("NetworkPolicy", "spec.egress[].metadata.**", Nothing("for people")),
    (
        "NetworkPolicy",
        "spec.egress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    ("Tier", "spec.order", Test("tiers_and_labels_of_service_accounts_decide_as_in_calico")),
    (
        "Tier",
        "spec.defaultAction",
        Test("what_a_tier_does_not_decide_it_denies_or_passes_as_its_default_action_says"),
    ),
    ("GlobalNetworkSet", "spec.nets[]", Test("sets_of_addresses_are_selected_by_their_labels")),
    ("NetworkSet", "spec.nets[]", Test("sets_of_addresses_are_selected_by_their_labels")),
    ("NetworkPolicy", "spec.podSelector.**", Test("compiled_policies_allow_what_a_naive_reading_allows")),
    (
        "NetworkPolicy",
        "spec.policyTypes[]",
        Test("a_policy_is_for_ingress_and_for_what_it_has_rules_for_unless_it_says_so"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].from[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].ports[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
    ("NetworkPolicy", "spec.egress[].to[].**", Test("compiled_policies_allow_what_a_naive_reading_allows")),
    (
        "NetworkPolicy",
        "spec.egress[].ports[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
];
