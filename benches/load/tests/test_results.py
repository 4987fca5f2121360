"""Which rounds count, and what they come to."""
import json, os, tempfile, unittest

from results import MOST_STOLEN, Results, figure, spread, tell, wanting

WALL = 4.0
NOT_STOLEN, STOLEN = MOST_STOLEN * WALL, MOST_STOLEN * WALL + 0.1


def took(value, peer="ours", label="req64", suite="rates", **more):
    """A round of a measurement, as the generator tells it."""
    return {"peer": peer, "suite": suite, "label": label, "round": 0, "wall_s": WALL, "steal_s": 0, "errors": 0, "cpu_us_per_req": value, **more}


class Folder(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = made.name

    def write(self, name, *rounds):
        with open(os.path.join(self.folder, f"{name}.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(each) + "\n" for each in rounds)

    def read(self, name, *rounds):
        self.write(name, *rounds)
        return Results(self.folder)

    def of(self, results, peer="ours", label="req64", key="cpu_us_per_req", group="egress"):
        return results.values[group].get((peer, label, key))


class Figures(unittest.TestCase):
    def test_a_figure_has_three_digits_or_all_before_the_point(self):
        for number, said in [(0.12345, "0.123"), (1.2345, "1.23"), (12.345, "12.3"), (123.45, "123"), (12345.6, "12,346"), (0, "0")]:
            self.assertEqual(figure(number), said)

    def test_one_round_is_a_figure_and_several_are_median_least_and_most(self):
        self.assertEqual(spread([12.34]), "12.3")
        self.assertEqual(spread([1, 9, 2]), "2 (1 to 9)")
        self.assertEqual(spread([4, 1, 9, 2]), "3 (1 to 9)")


class Rounds(Folder):
    def test_rounds_are_kept_by_group_peer_label_and_key(self):
        self.write("idle", took(7, label="idle1k", suite="idle"))
        self.write("relay", took(8, peer="relay-h2"), took(9, peer="direct"))
        results = self.read("egress", took(1), took(2, lat={"p50_us": 50}), took(3, label="conn32"), took(4, peer="squid"))
        self.assertEqual(self.of(results), [1, 2])
        self.assertEqual(self.of(results, key="lat.p50_us"), [50])
        self.assertEqual(self.of(results, label="conn32"), [3])
        self.assertEqual(self.of(results, peer="squid"), [4])
        self.assertEqual(self.of(results, label="idle1k"), [7])
        self.assertEqual(self.of(results, peer="relay-h2", group="relay"), [8])
        self.assertIsNone(self.of(results, peer="direct"))
        self.assertEqual((results.measured, results.rounds, results.stolen), (7 * WALL, 7, 0))
        self.assertEqual(list(results.errors()), [])

    def test_growth_is_kept_by_what_grows(self):
        grown = {"series": "rules", "value": 1000, "label": "conn32", "wall_s": WALL, "cpu_s_per_10k": 0.5}
        results = self.read("growth", grown)
        self.assertEqual(results.values["growth"]["rules", "conn32", "cpu_s_per_10k", 1000], [0.5])

    def test_a_round_with_errors_is_in_no_figure_and_is_named(self):
        results = self.read("egress", took(1), took(99, errors=1200, first_error="eof in reply"), took(2))
        self.assertEqual(self.of(results), [1, 2])
        self.assertEqual(results.measured, 2 * WALL)
        self.assertEqual(list(results.errors()), ["- ours: req64: 1 of 3 rounds left out, 2 remain: 1,200 × eof in reply"])

    def test_what_remains_of_rounds_with_errors_is_said(self):
        failing = took(99, errors=1, first_error="timeout")
        self.assertEqual(list(self.read("egress", failing, took(1)).errors()), ["- ours: req64: 1 of 2 rounds left out, 1 remains: 1 × timeout"])
        results = self.read("egress", failing, failing)
        # The same words once.
        self.assertEqual(list(results.errors()), ["- ours: req64: 2 of 2 rounds left out, none remains: 1 × timeout"])
        self.assertIsNone(self.of(results))

    def test_a_peer_that_did_not_start_is_named(self):
        results = self.read("egress", {"peer": "squid", "suite": "rates", "round": 0, "error": "not up, see /tmp/squid.err"})
        self.assertEqual(list(results.errors()), ["- squid: rates: did not start in 1 round: not up"])

    def test_paths_are_not_told(self):
        self.assertEqual(tell({"error": "ended early, see /var/peers/out 1"}), "ended early 1")
        self.assertEqual(len(tell({"error": "x" * 300})), 100)


class Stolen(Folder):
    def test_it_is_out_where_another_round_of_the_same_remains(self):
        results = self.read("egress", took(1), took(99, steal_s=STOLEN), took(98, steal_s=STOLEN))
        self.assertEqual(self.of(results), [1])
        self.assertEqual((results.rounds, results.stolen, results.only_stolen), (3, 2, []))
        self.assertEqual((results.measured, results.steal), (WALL, 0))

    def test_up_to_the_bound_it_counts(self):
        results = self.read("egress", took(1), took(2, steal_s=NOT_STOLEN))
        self.assertEqual(self.of(results), [1, 2])
        self.assertEqual((results.stolen, results.steal), (0, NOT_STOLEN))

    def test_it_stays_and_is_named_where_there_is_no_other(self):
        results = self.read("egress", took(5, steal_s=STOLEN), took(6, steal_s=STOLEN))
        self.assertEqual(self.of(results), [5, 6])
        self.assertEqual((results.stolen, results.only_stolen), (2, ["ours: req64"]))

    def test_a_round_of_something_else_is_no_other(self):
        others = took(1, label="conn32"), took(2, peer="squid"), took(3, suite="again")
        results = self.read("egress", took(5, steal_s=STOLEN), *others)
        self.assertEqual(self.of(results), [5, 3])
        self.assertEqual(results.only_stolen, ["ours: req64"])

    def test_nor_is_one_that_failed(self):
        results = self.read("egress", took(5, steal_s=STOLEN), took(99, errors=1, first_error="timeout"))
        self.assertEqual(self.of(results), [5])
        self.assertEqual(results.only_stolen, ["ours: req64"])

    def test_one_that_failed_is_named_as_that(self):
        results = self.read("egress", took(1), took(99, steal_s=STOLEN, errors=1, first_error="timeout"))
        self.assertEqual(self.of(results), [1])
        self.assertEqual(list(results.errors()), ["- ours: req64: 1 of 2 rounds left out, 1 remains: 1 × timeout"])
        self.assertEqual(results.only_stolen, [])
        results = self.read("egress", took(99, steal_s=STOLEN, errors=1))
        self.assertEqual((self.of(results), results.only_stolen), (None, []))


class Wanting(Folder):
    def test_peers_with_fewer_rounds_of_their_own_than_there_were_rounds(self):
        first, second = [took(1, peer="ours"), took(1, peer="squid", steal_s=STOLEN), took(1, peer="ats")], [took(1, peer="ours", round=1), took(1, peer="squid", round=1)]
        self.write("egress", *first, *second)
        self.assertEqual(list(wanting(self.folder, "rates")), ["squid"])
        self.assertEqual(list(wanting(self.folder, "idle")), [])

    def test_a_round_made_again_is_instead_of_the_stolen_one(self):
        self.write("egress", took(1, steal_s=STOLEN), took(2, round=1), took(3, round=0))
        self.assertEqual(list(wanting(self.folder, "rates")), [])

    def test_each_measurement_counts_by_itself(self):
        self.write("egress", took(1), took(2, round=1), took(1, label="conn32"), took(2, label="conn32", round=1, steal_s=STOLEN))
        self.assertEqual(list(wanting(self.folder, "rates")), ["ours"])


if __name__ == "__main__":
    unittest.main()
