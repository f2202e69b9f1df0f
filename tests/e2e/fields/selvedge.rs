//! Fields of our own kinds.

use super::{Proof::Test, Row};

const LIMIT_IS_FOR: &str = "a_rate_limit_is_for_what_it_names_and_says_what_there_is_not";

const SHARED: &str =
    "all_proxies_share_a_limit_that_a_server_counts_and_its_failure_is_handled_as_the_document_says";

pub(super) const ROWS: &[Row] = &[
    ("RateLimit", "spec.limits[].exempt[]", Test(LIMIT_IS_FOR)),
    (
        "RateLimit",
        "spec.limits[].header",
        Test("a_header_tells_clients_apart_and_those_without_it_share_one_limit"),
    ),
    ("RateLimit", "spec.limits[].**", Test("each_identity_has_its_own_limit_and_is_told_when_to_try_again")),
    ("RateLimit", "spec.tell", Test("every_answer_says_how_much_is_left_if_the_document_says_so")),
    ("RateLimit", "spec.dryRun", Test("a_grpc_client_is_told_in_its_own_words_and_a_dry_run_refuses_nobody")),
    (
        "RateLimit",
        "spec.global.descriptors[].**",
        Test("a_gateway_tells_a_limits_server_the_rule_and_the_address_that_a_request_comes_by"),
    ),
    ("RateLimit", "spec.global.**", Test(SHARED)),
    ("RateLimit", "spec.selector.**", Test(LIMIT_IS_FOR)),
    ("RateLimit", "spec.targetRefs[].**", Test(LIMIT_IS_FOR)),
    (
        "Revocation",
        "spec.identities[].**",
        Test("a_client_that_is_revoked_loses_every_connection_and_gets_no_new_one"),
    ),
    ("Revocation", "spec.workloads[]", Test("a_workload_is_revoked_by_its_name_without_its_service_account")),
    (
        "Revocation",
        "spec.serials[]",
        Test("a_certificate_that_is_revoked_by_its_number_shuts_nobody_else_out"),
    ),
    ("Revocation", "spec.until", Test("the_longest_of_several_entries_counts_and_each_ends_in_its_time")),
    (
        "Revocation",
        "spec.reason",
        Test("a_sidecar_that_is_revoked_gets_no_certificate_and_no_configuration_and_its_log_says_why"),
    ),
];
