"""Run under torchrun or alone: ten steps of Algorithm 1 on one global batch stream, per-step numbers to a JSON file."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
from pretraining_setup import EpisodeBuffer, learner, loader, ppo_training, tiny_mae, tiny_sampler  # noqa: E402
from tats.datasets.clips import PretrainSample  # noqa: E402
from tats.engines.core import runtime  # noqa: E402
from tats.engines.core.meters import Meters  # noqa: E402
from tats.engines.engine_for_pretraining_ppo import train_one_epoch  # noqa: E402

torch.set_num_threads(1)
where = runtime.start("cpu")
mae = learner(tiny_mae(seed=where.rank), runtime=where)  # DDP must bring the ranks' different starts together
tats = learner(tiny_sampler(seed=10 + where.rank), runtime=where)
training = ppo_training(mae.module, mae_only_epochs=1, reuse_forward=len(sys.argv) < 3)


def flat(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


start = {"weights": flat(mae.module).tolist(), "theta": flat(tats.module).tolist()}
records = []
for epoch in (0, 1):
    for batch in loader(5, 8, seed=epoch):
        mine = PretrainSample(*(part[where.rank::where.world_size] for part in batch))
        log = Meters()
        train_one_epoch(epoch, [mine], mae, tats, EpisodeBuffer(), training, log)
        records.append(log.means(where))
weights, theta = flat(mae.module), flat(tats.module)
digests = where.gather_objects([weights.double().sum().item(), theta.double().sum().item()])
if where.is_main:
    Path(sys.argv[1]).write_text(json.dumps({"records": records, "digests": digests, "weights": weights.tolist(),
                                             "theta": theta.tolist(), "start": start}))
runtime.stop(where, (mae, tats))
