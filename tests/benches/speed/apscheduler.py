# How late APScheduler runs jobs that are all due at the next full minute, from a store on disk.
# Arguments: the file of the store, and how many jobs. Prints the lateness of each, in ms.
import sys
import threading
import time
from datetime import datetime, timezone

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

LEAST_WAIT = 2  # seconds

late = []
all_ran = threading.Event()


def fire(due, count):
    late.append((time.time() - due) * 1000)
    if len(late) == count:
        all_ran.set()


def main(store, count):
    scheduler = BackgroundScheduler(
        timezone=timezone.utc,
        executors={"default": ThreadPoolExecutor(10)},
        job_defaults={"misfire_grace_time": None},
    )
    scheduler.add_jobstore("sqlalchemy", url=f"sqlite:///{store}")
    scheduler.start(paused=True)
    # Adding a job writes to the disk. They get their time when all are there.
    began = time.time()
    for number in range(10):
        scheduler.add_job(fire, "cron", args=[0, 0], year=2100, id=f"probe-{number}")
    a_job = (time.time() - began) / 10
    scheduler.remove_all_jobs()
    due = int((time.time() + a_job * count * 2 + LEAST_WAIT) // 60 + 1) * 60
    at = datetime.fromtimestamp(due, timezone.utc)
    for number in range(count):
        scheduler.add_job(
            fire, "cron", args=[due, count], id=f"job-{number}", hour=at.hour, minute=at.minute
        )
    assert time.time() < due, "adding the jobs took too long"
    scheduler.resume()
    assert all_ran.wait(due - time.time() + 600), "not every job ran"
    scheduler.shutdown()
    assert len(late) == count, "a job ran twice"
    print("\n".join(f"{it:.1f}" for it in late))


main(sys.argv[1], int(sys.argv[2]))
