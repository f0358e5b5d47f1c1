"""Noise is one draw for each subject, and its secret is made once."""

import numpy as np

from silo_app.policy.noise import keyed_noise, load_secret


def test_noise_is_one_draw_for_each_subject():
    noise = [keyed_noise(b"s" * 32, "count", f"p{i}", 1.0) for i in range(4000)]
    assert noise[:50] == [keyed_noise(b"s" * 32, "count", f"p{i}", 1.0) for i in range(50)]
    assert 0.2 < np.mean(np.array(noise) < 0) < 0.34  # exp(-1) / (1 + exp(-1)) = 0.27
    assert 0.4 < np.mean(np.array(noise) == 0) < 0.53  # tanh(1 / 2) = 0.46


def test_a_secret_is_made_once_and_private(tmp_path):
    path = tmp_path / "silo" / "release.key"
    assert load_secret(path) == load_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
