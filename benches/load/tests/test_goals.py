"""Verdicts of the table of goals, and whom ours is held against."""
import unittest
from collections import defaultdict

from goals import ROWS, goals, is_peer, row

KEY = "cpu_us_per_req"


class Cells:
    def __init__(self, cells):
        self.ours, self.best, self.ratio, self.naive, self.goal, self.met = cells


def cells(own, medians, goal, kind="plain", key=KEY):
    return Cells(row(own, medians, key, kind, goal))


class AtMost(unittest.TestCase):
    def test_a_factor_on_the_best_is_met_up_to_the_limit(self):
        peers = {"squid": 10, "envoy": 20}
        for own, met in [(8.9, "yes"), (9.0, "yes"), (18.0, "no: 2 × the goal")]:
            seen = cells([own], peers, ("best", 0.9))
            self.assertEqual((seen.goal, seen.met), ("≤ 0.9 × squid = 9", met), own)
        self.assertEqual(cells([18], peers, ("best", 0.9)).ratio, "1.80")

    def test_a_factor_on_one_that_is_named_is_not_on_the_best(self):
        peers = {"squid": 10, "ats": 20}
        seen = cells([14], peers, ("ats", 0.75))
        self.assertEqual((seen.best, seen.ratio, seen.goal, seen.met), ("squid 10.0", "1.40", "≤ 0.75 × ats = 15.0", "yes"))
        self.assertEqual(cells([30], peers, ("ats", 0.75)).met, "no: 2 × the goal")

    def test_an_amount_asks_for_no_peer(self):
        for own, met in [(3.9, "yes"), (4, "yes"), (5, "no: 1.25 × the goal")]:
            seen = cells([own], {}, ("amount", 4))
            self.assertEqual((seen.best, seen.ratio, seen.goal, seen.met), ("–", "–", "≤ 4", met), own)

    def test_the_median_is_judged(self):
        self.assertEqual(cells([1, 100, 2], {}, ("amount", 4)).met, "yes")
        seen = cells([1, 100, 8], {}, ("amount", 4))
        self.assertEqual((seen.ours, seen.met), ("8 (1 to 100)", "no: 2 × the goal"))


class AtLeast(unittest.TestCase):
    def test_a_factor_on_the_most_is_met_from_the_limit_on(self):
        peers = {"squid": 1, "envoy": 2}
        for own, met in [(3, "yes"), (2.4, "yes"), (1.2, "no: 0.5 × the goal")]:
            seen = cells([own], peers, ("most", 1.2), key="gib_per_s")
            self.assertEqual((seen.best, seen.goal, seen.met), ("envoy 2", "≥ 1.2 × envoy = 2.4", met), own)

    def test_an_amount(self):
        for own, met in [(0.7, "yes"), (0.6, "yes"), (0.3, "no: 0.5 × the goal")]:
            seen = cells([own], {}, ("least", 0.6), key="gib_per_s")
            self.assertEqual((seen.goal, seen.met), ("≥ 0.6", met), own)


class Missing(unittest.TestCase):
    def test_ours(self):
        for goal in [("best", 0.9), ("amount", 4)]:
            seen = cells(None, {"squid": 10}, goal)
            self.assertEqual((seen.ours, seen.best, seen.ratio, seen.met), ("–", "squid 10.0", "–", "not measured"))

    def test_all_peers(self):
        seen = cells([10], {}, ("best", 0.9))
        self.assertEqual((seen.ours, seen.best, seen.ratio, seen.goal, seen.met), ("10.0", "–", "–", "≤ 0.9 × the best", "nobody to hold it against"))
        self.assertEqual(cells([1], {}, ("most", 1.2), key="gib_per_s").goal, "≥ 1.2 × the best")

    def test_the_peer_that_is_named(self):
        seen = cells([10], {"squid": 20}, ("ats", 0.75))
        self.assertEqual((seen.best, seen.ratio, seen.goal, seen.met), ("squid 20.0", "0.50", "≤ 0.75 × ats", "nobody to hold it against"))

    def test_a_peer_whose_work_is_not_seen_makes_no_ratio(self):
        seen = cells([10], {"squid": 0}, ("best", 0.9))
        self.assertEqual((seen.ratio, seen.met), ("–", "no"))

    def test_the_naive_one(self):
        self.assertEqual(cells([10], {}, ("amount", 4)).naive, "–")
        self.assertEqual(cells([10], {"naive-tokio": 13}, ("amount", 4)).naive, "13.0")


class Best(unittest.TestCase):
    def test_it_is_neither_ours_nor_naive_nor_direct_nor_a_bare_forwarder(self):
        medians = {"direct": 1, "naive-tokio": 2, "ours-judged": 3, "haproxy-plain": 4, "squid-tls": 5, "squid": 6, "envoy": 7}
        seen = cells([3], medians, ("best", 1))
        self.assertEqual((seen.best, seen.naive, seen.met), ("squid 6 (bare forwarder haproxy-plain 4)", "2", "yes"))

    def test_of_tls_listeners_only_such_count_and_are_named_without_it(self):
        medians = {"squid": 1, "envoy-tls": 4, "squid-tls": 5, "naive-tokio-tls": 2, "ours-tls": 3}
        seen = cells([3], medians, ("best", 1), kind="tls")
        self.assertEqual((seen.best, seen.naive, seen.goal), ("envoy 4", "2", "≤ 1 × envoy = 4"))
        self.assertEqual(cells([2], medians, ("envoy-tls", 0.5), kind="tls").goal, "≤ 0.5 × envoy = 2")

    def test_beside_a_best_relay_in_the_plain_the_best_that_encrypts_is_named(self):
        medians = {"bore": 1, "rathole": 2, "ssh-aesgcm": 3, "stunnel": 4, "naive-h2": 0.5, "relay-quic": 0.1}
        seen = cells([1], medians, ("best", 1), kind="relay-h2")
        self.assertEqual((seen.best, seen.naive), ("bore 1 (in the plain; encrypted ssh-aesgcm 3)", "0.5"))
        rates = {"bore": 4, "rathole": 3, "ssh-aesgcm": 1, "stunnel": 2}
        seen = cells([1], rates, ("most", 1), kind="relay-quic", key="gib_per_s")
        self.assertEqual(seen.best, "bore 4 (in the plain; encrypted stunnel 2)")
        self.assertEqual(cells([1], {"bore": 1}, ("best", 1), kind="relay-h2").best, "bore 1")

    def test_one_that_encrypts_is_named_alone_and_so_is_a_relay_by_tls(self):
        self.assertEqual(cells([1], {"bore": 3, "stunnel": 2}, ("best", 1), kind="relay-h2").best, "stunnel 2")
        self.assertEqual(cells([1], {"haproxy-tls": 2}, ("best", 1), kind="relay-h2").best, "haproxy-tls 2")
        self.assertTrue(is_peer("nginx-stream-tls", "relay-quic"))


class Table(unittest.TestCase):
    def test_a_row_for_each_goal_each_by_its_own_group_label_and_key(self):
        class Results:
            values = {"egress": defaultdict(list), "relay": defaultdict(list)}

        egress, relay = Results.values["egress"], Results.values["relay"]
        egress["ours", "req64", KEY] = [5, 7, 6]
        egress["squid", "req64", KEY] = [9, 10, 30]
        # Neither of these is what is asked for.
        egress["squid", "conn32", KEY] = [1]
        egress["ats", "req64", "per_s"] = [1]
        relay["bore", "req64", KEY] = [1]
        relay["relay-h2", "req64", KEY] = [44]
        head, rule, *rows = goals(Results)
        self.assertEqual(len(rows), len(ROWS))
        self.assertEqual({line.count("|") for line in (head, rule, *rows)}, {8})
        self.assertIn("| Request through an open tunnel, CPU µs | 6 (5 to 7) | squid 10.0 | 0.60 | – | ≤ 0.9 × squid = 9 | yes |", rows)
        self.assertIn("| Relay: 1 KiB echo on 64 connections, CPU µs, TLS | 44.0 | bore 1 | 44.00 | – | ≤ 22 | no: 2 × the goal |", rows)
        self.assertEqual(sum("not measured" in line for line in rows), len(ROWS) - 2)


if __name__ == "__main__":
    unittest.main()
