"""Do things that sound alike look alike to the net? Visual features, coloured by clusters of their sound.

As in the paper (Zhou et al., ECCV 2022, the t-SNE figure): the audio vectors of all labelled seconds are reduced by
PCA and put into K = 20 clusters by K-means; the visual features of the same seconds are laid out by t-SNE. Ours is the
feature: relu(Z) of the coarsest level, mean over the positions. Since a layout shows what one wants to see, the share
of the five nearest neighbours (in the feature space, of other clips) that belong to the same audio cluster is given
beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from avs_core.datasets.labelled import LabelledClip
from avs_core.errors import ConfigError
from avs_core.models.bundle import Bundle
from avs_core.models.normalisation import Normalisation
from avs_core.models.tpavi import TPAVINet

CLUSTERS = 20
NEIGHBOURS = 5

_COMPONENTS = 16
_FEWEST = 8
"""Points that a layout needs to mean anything."""


@dataclass(frozen=True)
class Features:
    """Of n seconds: what is seen (C numbers), what is heard (A numbers), and in which clip."""

    visual: Float32[np.ndarray, "n C"]
    audio: Float32[np.ndarray, "n A"]
    clip: Int64[np.ndarray, " n"]


@torch.inference_mode()
def features(bundle: Bundle, clips: Iterable[LabelledClip], deaf: bool = False) -> Features:
    """The labelled seconds of the clips; `deaf` lets the net see without its TPAVI blocks.

    Raises ConfigError for a net in whose features no sound can be.
    """
    net, device = bundle.net, next(bundle.net.parameters()).device
    if not isinstance(net, TPAVINet):
        raise ConfigError(f"the features of {bundle.config.name} never meet its sound, only TPAVI's do: draw its masks")
    normalise, window = Normalisation(bundle.config.mean, bundle.config.std), bundle.config.window_s
    visual, audio, numbers = [], [], []
    for number, clip in enumerate(clips):
        vectors = bundle.audio_encoder(torch.from_numpy(clip.sound).to(device))
        frames = normalise(torch.from_numpy(clip.frames)[None].to(device))
        seen = []
        for first in range(0, len(clip.frames), window):
            at = slice(first, first + window)
            if deaf:
                level = torch.relu(net.look(frames[:, at])[-1][0])
            else:
                level = net(frames[:, at], vectors[None, at]).visual[-1][0]
            seen.append(level.mean((2, 3)))
        visual.append(torch.cat(seen)[torch.from_numpy(clip.labelled)].float().cpu().numpy())
        audio.append(vectors[torch.from_numpy(clip.labelled)].float().cpu().numpy())
        numbers += [number] * int(clip.labelled.sum())
    return Features(np.concatenate(visual), np.concatenate(audio), np.array(numbers))


def audio_clusters(audio: Float32[np.ndarray, "n A"], seed: int) -> Int64[np.ndarray, " n"]:
    """PCA, then K-means; fewer than 20 clusters where there are fewer than 40 seconds, or fewer different ones."""
    reduced = PCA(min(_COMPONENTS, *audio.shape), random_state=seed).fit_transform(audio)
    different = len(np.unique(reduced.round(3), axis=0))
    clusters = max(1, min(CLUSTERS, len(audio) // 2, different))
    labels = KMeans(clusters, n_init=4, random_state=seed).fit_predict(reduced)
    return np.asarray(labels, np.int64)


def agreement(found: Features, clusters: Int64[np.ndarray, " n"], nearest_only: bool = True) -> float:
    """Share of the five nearest neighbours in another clip that are in the same audio cluster.

    Without `nearest_only` of all seconds of other clips: what chance gives.
    """
    nearest = NearestNeighbors(n_neighbors=len(found.visual) - 1).fit(found.visual)
    neighbours = nearest.kneighbors(return_distance=False)
    shares = []
    for i, order in enumerate(neighbours):
        others = order[found.clip[order] != found.clip[i]][: NEIGHBOURS if nearest_only else None]
        if len(others):
            shares.append(float((clusters[others] == clusters[i]).mean()))
    return float(np.mean(shares)) if shares else 0.0


def cluster_figure(panels: Sequence[tuple[str, Features]], seed: int = 0) -> Figure | None:
    """One layout a panel, with the clusters of the first panel's audio; None for too few seconds."""
    first = panels[0][1]
    if len(first.visual) < _FEWEST:
        return None
    clusters = audio_clusters(first.audio, seed)
    figure = Figure(figsize=(5 * len(panels), 5.2), layout="constrained")
    for axis, (title, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        perplexity = min(30.0, (len(found.visual) - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(found.visual)
        axis.scatter(*layout.T, c=clusters, cmap="tab20", s=14)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{title}\nneighbours of one sound: {agreement(found, clusters):.2f}", fontsize=10)
    chance = agreement(first, clusters, nearest_only=False)
    about = f"coloured by {clusters.max() + 1} audio clusters ({len(clusters)} seconds; chance {chance:.2f})"
    figure.suptitle(f"visual features, {about}", fontsize=10)
    return figure
