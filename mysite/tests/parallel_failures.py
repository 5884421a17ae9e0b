"""Not found by discovery: tests that fail with what can't be sent from process to process."""

import threading

from django.test import SimpleTestCase


class ErrorTests(SimpleTestCase):
    def test_an_error_that_holds_a_lock(self):
        error = RuntimeError("This error holds a lock.")
        error.lock = threading.Lock()
        raise error

    def test_the_next_one_passes(self):
        pass


class SubTestTests(SimpleTestCase):
    def test_a_subtest_of_a_function(self):
        for number in (1, 2):
            with self.subTest(number=number, function=lambda: 0):
                self.assertEqual(number, 1, "This subtest has a function.")


class BrokenClassTests(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        raise ValueError(lambda: "This class can't be set up.")

    def test_it_is_not_run(self):
        pass
