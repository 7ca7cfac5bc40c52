"""The stage responses.jsonl → judgments.jsonl: each response is judged once, whatever interrupts it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cut_dist.judges.base import Judged, JudgeRequest
from cut_dist.judges.make import judge_settings, make_judge
from cut_dist.online.config import OnlineConfig
from cut_dist.online.progress import StageProgress
from cut_dist.online.records import Response, read_records
from cut_dist.online.stage import Stage, StageError, open_stage
from cut_dist.wording import counted

log = logging.getLogger(__name__)

_TELLING = 20  # with fewer responses it is no surprise when all verdicts agree


def run_judging(cfg: OnlineConfig, source: Path, output: Path) -> None:
    """Judge the responses in `source`; the judgments go to `output`, in the same order.

    Raises:
        StageError: more than `judge.max_set_aside` of them got no verdict, or the stage can't be continued.
        RecordError: `source` is no file of responses.
    """
    responses = read_records(source, Response)
    with open_stage("judge", output, Judged, {"responses": source}, judge_settings(cfg)) as stage:
        if stage.done:
            log.info("%s is there already, all %s judged", output, counted(len(responses), "response"))
            return
        if len(stage.rows) < len(responses):
            _judge(cfg, responses, stage)
        missing = [each.id for each in responses if each.id not in stage.rows]
        if missing:
            raise StageError(f"the judge left out {counted(len(missing), 'response')}: {', '.join(missing[:5])} …")
        judgments = [stage.rows[each.id] for each in responses]
        _require_verdicts(judgments, cfg.judge.max_set_aside)
        verdicts = Counter(verdict_of(judged) for judged in judgments)
        counts = {name: verdicts[name] for name in ("satisfactory", "unsatisfactory", "set_aside")}
        stage.finish(judgments, counts, cost=sum(judged.detail.get("cost", 0.0) for judged in judgments))
        log.info("%s: %s", output, ", ".join(f"{count:,} {name}" for name, count in counts.items()))
        if len(judgments) >= _TELLING and len(judgments) in (counts["satisfactory"], counts["unsatisfactory"]):
            log.warning("the judge says the same of all %d responses: does it judge at all?", len(judgments))


def _judge(cfg: OnlineConfig, responses: Sequence[Response], stage: Stage) -> None:
    requests = [judge_request(each) for each in responses]
    with StageProgress("judged", "response", len(requests) - len(stage.rows)) as progress:
        for judged in make_judge(cfg).judge(requests, set(stage.rows)):
            stage.append([judged])
            progress.advance(1)


def judge_request(response: Response) -> JudgeRequest:
    """A response as a judge sees it."""
    messages = (
        {"role": "user", "content": response.instruction},
        {"role": "assistant", "content": response.response},
    )
    return JudgeRequest(response.id, messages, response.metadata)


def verdict_of(judged: Judged) -> str:
    """ "satisfactory", "unsatisfactory" or "set_aside"."""
    return {True: "satisfactory", False: "unsatisfactory", None: "set_aside"}[judged.satisfactory]


def _require_verdicts(judgments: Sequence[Judged], most: float) -> None:
    aside = [judged for judged in judgments if judged.satisfactory is None]
    if len(aside) <= most * len(judgments):
        return
    reasons = Counter(str(judged.detail.get("reason", "no reason given")) for judged in aside).most_common(3)
    listed = "; ".join(f"{reason} ({count:,})" for reason, count in reasons)
    raise StageError(
        f"{len(aside):,} of {len(judgments):,} responses got no verdict, more than judge.max_set_aside={most}: "
        f"{listed}. Mend the judge, or raise judge.max_set_aside: the same command then takes what is there"
    )
