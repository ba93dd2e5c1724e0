"""NSML's entry (`nsml run -d DATASET -e main.py`); what it does is in kit/platforms/nsml.py."""

import argparse
import sys

from kit import challenges
from kit.errors import KitError
from kit.platforms import nsml

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--mode", default="train", help="train, or test at submit")
parser.add_argument("--iteration", default="0", help="a checkpoint's name; NSML passes it")
parser.add_argument("--pause", type=int, default=0, help="1 at submit")
parser.add_argument("--challenge", default="khd2020", help="khd2020, khd2019 or your own data set")
parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")

if __name__ == "__main__":
    given = parser.parse_args()
    try:
        nsml.session(
            given.challenge, challenges, mode=given.mode, pause=given.pause, settings=given.set
        )
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
