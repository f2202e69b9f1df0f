//! Fields of Istio's `VirtualService`.

use super::{
    Proof::{self, Nothing, Reported, Test},
    Row,
};

const MATCHES: Proof = Test("every_condition_of_a_match_holds_in_either_version_of_http_alike");
const SHARES: Proof = Test("canary_with_header");

pub(super) const ROWS: &[Row] = &[
    ("VirtualService", "spec.exportTo[]", Test("a_virtual_service_is_followed_by_those_whom_it_is_for")),
    ("VirtualService", "spec.gateways[]", Test("a_virtual_service_is_followed_at_the_gateway_that_it_names")),
    ("VirtualService", "spec.hosts[]", Test("the_most_specific_host_pattern_wins")),
    ("VirtualService", "spec.http[].corsPolicy.**", Test("a_cors_policy_is_read_in_either_form")),
    (
        "VirtualService",
        "spec.http[].delegate.**",
        Test("a_delegates_routes_stand_in_the_place_of_the_one_that_names_it"),
    ),
    ("VirtualService", "spec.http[].directResponse.**", Test("a_direct_response_is_a_status_and_a_body")),
    (
        "VirtualService",
        "spec.http[].fault.delay.exponentialDelay",
        Reported("faults_that_cannot_be_made_are_refused"),
    ),
    (
        "VirtualService",
        "spec.http[].fault.abort.http2Error",
        Reported("faults_that_cannot_be_made_are_refused"),
    ),
    ("VirtualService", "spec.http[].fault.**", Test("a_fault_is_for_a_share_of_requests")),
    (
        "VirtualService",
        "spec.http[].headers.**",
        Test("headers_are_changed_for_a_route_and_for_one_of_its_destinations"),
    ),
    (
        "VirtualService",
        "spec.http[].mirror.**",
        Test("a_copy_is_the_request_as_its_rule_made_it_and_nobody_sees_its_answer"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrorPercent",
        Test("a_mirror_is_a_backend_of_its_own_with_a_share_of_all"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrorPercentage.**",
        Test("a_mirror_is_a_backend_of_its_own_with_a_share_of_all"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrors[].**",
        Test("each_request_is_drawn_for_itself_and_tried_again_it_is_copied_once"),
    ),
    ("VirtualService", "spec.http[].redirect.**", Test("a_redirect_says_where_to")),
    ("VirtualService", "spec.http[].rewrite.**", Test("a_rewrite_is_of_the_path_the_authority_or_both")),
    (
        "VirtualService",
        "spec.http[].route[].headers.**",
        Test("headers_are_changed_for_a_route_and_for_one_of_its_destinations"),
    ),
    ("VirtualService", "spec.http[].match[].sourceLabels.*", Test("who_the_client_is_stands_in_the_match")),
    ("VirtualService", "spec.http[].match[].sourceNamespace", Test("who_the_client_is_stands_in_the_match")),
    ("VirtualService", "spec.http[].match[].authority.**", MATCHES),
    (
        "VirtualService",
        "spec.http[].match[].gateways[]",
        Test("a_match_may_be_for_a_gateway_a_port_or_a_workload"),
    ),
    ("VirtualService", "spec.http[].match[].headers.*.**", MATCHES),
    ("VirtualService", "spec.http[].match[].ignoreUriCase", MATCHES),
    ("VirtualService", "spec.http[].match[].method.**", MATCHES),
    ("VirtualService", "spec.http[].match[].name", Nothing("for people: which match it is")),
    ("VirtualService", "spec.http[].match[].port", MATCHES),
    ("VirtualService", "spec.http[].match[].queryParams.*.**", MATCHES),
    ("VirtualService", "spec.http[].match[].scheme.**", MATCHES),
    ("VirtualService", "spec.http[].match[].statPrefix", Nothing("a name in Envoy's own statistics")),
    ("VirtualService", "spec.http[].match[].uri.**", MATCHES),
    ("VirtualService", "spec.http[].match[].withoutHeaders.*.**", MATCHES),
    ("VirtualService", "spec.http[].name", Test("path_method_and_query")),
    ("VirtualService", "spec.http[].retries.attempts", Test("the_number_of_attempts_is_kept")),
    (
        "VirtualService",
        "spec.http[].retries.backoff",
        Test("pauses_are_drawn_below_a_doubling_ceiling_of_at_most_ten_times"),
    ),
    ("VirtualService", "spec.http[].retries.perTryTimeout", Test("the_time_limit_of_an_attempt_ends_it")),
    ("VirtualService", "spec.http[].retries.retryOn", Test("each_word_names_its_failures")),
    (
        "VirtualService",
        "spec.http[].route[].destination.host",
        Test("an_unknown_host_of_its_own_leaves_a_document_without_effect"),
    ),
    (
        "VirtualService",
        "spec.http[].route[].destination.port.number",
        Test("an_unknown_port_of_a_known_host_is_a_broken_reference"),
    ),
    ("VirtualService", "spec.http[].route[].destination.subset", SHARES),
    ("VirtualService", "spec.http[].route[].weight", SHARES),
    ("VirtualService", "spec.http[].timeout", Test("the_time_limit_of_a_route_ends_a_slow_request")),
    (
        "VirtualService",
        "spec.tcp[].match[].destinationSubnets[]",
        Test("of_rules_for_any_bytes_the_first_that_matches_wins_however_wide_it_is"),
    ),
    ("VirtualService", "spec.tcp[].match[].gateways[]", Test("what_tcp_and_tls_routes_get_wrong_is_said")),
    ("VirtualService", "spec.tcp[].match[].port", Test("a_virtual_service_splits_tcp_by_weight_and_port")),
    (
        "VirtualService",
        "spec.tcp[].match[].sniHosts[]",
        Reported("what_tcp_and_tls_routes_get_wrong_is_said"),
    ),
    (
        "VirtualService",
        "spec.tcp[].match[].sourceLabels.*",
        Test("connections_go_where_routes_for_their_client_say"),
    ),
    (
        "VirtualService",
        "spec.tcp[].match[].sourceNamespace",
        Test("connections_go_where_routes_for_their_client_say"),
    ),
    ("VirtualService", "spec.tcp[].route[].**", Test("a_virtual_service_splits_tcp_by_weight_and_port")),
    (
        "VirtualService",
        "spec.tls[].match[].destinationSubnets[]",
        Test("of_rules_for_tls_the_narrowest_subnet_wins_and_among_equals_the_first"),
    ),
    ("VirtualService", "spec.tls[].match[].gateways[]", Test("what_tcp_and_tls_routes_get_wrong_is_said")),
    ("VirtualService", "spec.tls[].match[].port", Test("a_virtual_service_sends_tls_by_its_server_name")),
    (
        "VirtualService",
        "spec.tls[].match[].sniHosts[]",
        Test("an_apps_own_tls_goes_where_its_server_name_is_routed"),
    ),
    ("VirtualService", "spec.tls[].match[].sourceLabels.*", Test("a_rule_may_be_for_some_clients_only")),
    ("VirtualService", "spec.tls[].match[].sourceNamespace", Test("a_rule_may_be_for_some_clients_only")),
    ("VirtualService", "spec.tls[].route[].**", Test("a_virtual_service_sends_tls_by_its_server_name")),
];
