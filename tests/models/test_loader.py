"""What the loader reads, and what it refuses; every refusal names tensor, shapes and file."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.config import EngineConfig
from quire.errors import ConfigError, DeviceMemoryError, UnsupportedModelError, WeightsError
from quire.hub import find_model
from quire.models import loader
from quire.models.loader import load_model
from quire.models.weights import weight_files
from quire.quant import Weight
from tiny_models import make_checkpoint, make_model

MLP = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("saved"), "llama")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def load(folder, **options):
    config = EngineConfig(model=str(folder), **{"device": "cpu", **options})
    return load_model(find_model(config), config)


def rewrite(folder, change):
    """Change the tensors of a folder's only file of weights."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")


def shard(folder):
    """Split a folder's weights over two files and an index, by transformers' names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / file)
        weight_map.update(dict.fromkeys(half, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickle_weights(folder):
    """Put the weights into pytorch_model.bin instead."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("form", [shard, pickle_weights])
def test_every_form_of_a_checkpoint_gives_the_same_weights(folder, saved, form):
    form(folder)
    assert_same_weights(load(folder).state_dict(), load(saved).state_dict())


def test_safetensors_go_before_pickled_weights_unless_asked_otherwise(folder):
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    load(folder)
    assert weight_files(folder, "pt") == [folder / "pytorch_model.bin"]
    with pytest.raises(WeightsError, match=r"unexpected tensor x \[1\]"):
        load(folder, load_format="pt")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(folder, dtype):
    model = load(folder, dtype=dtype)
    wanted = {getattr(torch, dtype)}
    assert {
        p.plain().dtype if isinstance(p, Weight) else p.dtype for p in model.parameters()
    } == wanted
    assert model.model.rotary_emb.frequencies.dtype == torch.float32


def test_dtype_auto_is_the_checkpoints(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "dtype": "bfloat16"}))
    assert load(folder).dtype == torch.bfloat16
    (folder / "config.json").write_text(json.dumps({**settings, "dtype": "float8_e4m3fn"}))
    with pytest.raises(UnsupportedModelError, match="float8_e4m3fn"):
        load(folder)
    assert load(folder, dtype="float32").dtype == torch.float32


def test_a_loaded_model_has_no_gradients_and_nothing_left_on_meta(folder):
    model = load(folder)
    assert not model.training
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.device.type == "cpu" and not tensor.requires_grad


def test_missing_tensors_are_named_as_the_checkpoint_calls_them(folder):
    rewrite(folder, lambda tensors: tensors.pop(MLP))
    with pytest.raises(WeightsError, match=rf"lacks {MLP},"):
        load(folder)


def test_a_missing_part_of_a_merged_weight_is_named(folder):
    rewrite(folder, lambda tensors: tensors.pop("model.layers.2.self_attn.k_proj.weight"))
    with pytest.raises(WeightsError, match=r"lacks model\.layers\.2\.self_attn\.k_proj\.weight,"):
        load(folder)


def test_many_missing_tensors_are_counted(folder):
    for_config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**for_config, "num_hidden_layers": 4}))
    with pytest.raises(WeightsError, match=r"lacks model\.layers\.3.* and 4 more"):
        load(folder)


def test_an_unexpected_tensor_is_named_with_its_file(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2, 3)}))
    with pytest.raises(
        WeightsError,
        match=r"unexpected tensor model\.extra\.weight \[2, 3\] in .*model\.safetensors",
    ):
        load(folder)


def test_a_bias_the_config_does_not_know_is_unexpected(folder):
    name = "model.layers.0.self_attn.q_proj.bias"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(32)}))
    with pytest.raises(WeightsError, match="unexpected tensor"):
        load(folder)


@pytest.mark.parametrize("name", [MLP, "model.layers.0.self_attn.v_proj.weight"])
def test_a_misshapen_tensor_is_named_with_both_shapes_and_its_file(folder, name):
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(5, 7)}))
    wanted = r"\[32, 48\]" if name == MLP else r"\[16, 32\]"
    with pytest.raises(
        WeightsError, match=rf"{name} in .*model\.safetensors has shape \[5, 7\].*{wanted}"
    ):
        load(folder)


def test_integer_weights_are_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({MLP: torch.zeros(32, 48, dtype=torch.int8)}))
    with pytest.raises(WeightsError, match=r"torch\.int8"):
        load(folder)


def test_old_tensors_that_nobody_needs_are_left_out(folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(4)}))
    load(folder)


def test_tied_weights_may_stand_in_the_file_twice_if_they_are_the_same(tmp_path):
    folder = make_checkpoint(tmp_path, "llama", tie_word_embeddings=True)
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": embedding.clone()}))
    model = load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(WeightsError, match="tie_word_embeddings"):
        load(folder)
    untied = load(folder, hf_overrides={"tie_word_embeddings": False})
    assert torch.equal(untied.lm_head.weight.plain(), embedding + 1)


def test_gpt2_loads_without_prefix_and_with_its_old_masks(tmp_path):
    folder = make_checkpoint(tmp_path, "gpt2")
    expected = load(folder).state_dict()

    def as_on_the_hub(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)

    rewrite(folder, as_on_the_hub)
    assert_same_weights(load(folder).state_dict(), expected)


def test_no_weights(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    with pytest.raises(WeightsError, match=r"none of model\.safetensors.*load_format='dummy'"):
        load(folder)


def test_a_file_that_the_index_lists_must_be_there(folder):
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_an_index_names_no_file_outside_of_its_folder(folder, name):
    index = folder / "model.safetensors.index.json"
    (folder / "model.safetensors").unlink()
    index.write_text(json.dumps({"weight_map": {MLP: name}}))
    with pytest.raises(WeightsError, match="outside of the folder"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match="index\\.json"):
        load(folder)


@pytest.mark.parametrize("size", [0, 5, 2000, -100])
def test_a_cut_file(folder, size):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        load(folder)


def test_a_pointer_of_git_lfs(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        load(folder)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code of the checkpoint was run",))


def test_pickled_code_is_not_run(folder):
    pickle_weights(folder)
    torch.save({"x": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="could run code"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Harmful()}, protocol=2))
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        load(folder)


def test_dummy_weights_depend_on_the_seed_alone(folder):
    (folder / "model.safetensors").unlink()
    first, again = (load(folder, load_format="dummy").state_dict() for _ in range(2))
    other = load(folder, load_format="dummy", seed=1).state_dict()
    assert_same_weights(first, again)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert all(torch.isfinite(tensor).all() for tensor in first.values())


def test_quantized_checkpoints_are_refused_by_name(folder):
    quantized = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    with pytest.raises(UnsupportedModelError, match="'awq'"):
        load(folder, hf_overrides=quantized)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"architectures": ["LlamaForCausalLn"]}, "did you mean 'LlamaForCausalLM'"),
        ({"architectures": ["T5Model"]}, "Gemma2ForCausalLM, LlamaForCausalLM"),
        ({"architectures": None}, "names no architecture"),
        ({"hidden_act": "swiglu9"}, "activation 'swiglu9'"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads=3"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2}}, "'spiral'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_quire_does_not_have_is_named(folder, overrides, message):
    with pytest.raises(UnsupportedModelError, match=message):
        load(folder, hf_overrides=overrides)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_where_there_is_none(folder):
    with pytest.raises(ConfigError, match="finds no GPU"):
        load(folder, device="cuda")
    assert load(folder, device="auto").device.type == "cpu"


def test_out_of_memory_says_what_to_do(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(loader, "_twin", refuse)
    with pytest.raises(DeviceMemoryError, match="smaller model or dtype"):
        load(folder)


def test_other_errors_while_memory_is_given_are_not_hidden(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(loader, "_twin", fail)
    with pytest.raises(RuntimeError, match="something else"):
        load(folder)


def test_the_kv_cache_of_a_spec(folder):
    spec = load(folder).spec
    assert spec.kv_cache_shape(10, 16) == (2, 10, 2, 16, 8)
    assert spec.kv_bytes_per_token(2) == 2 * 3 * 2 * 8 * 2
    assert spec.windows == (None, None, None)


def test_windows_of_layers(tmp_path):
    def windows(model_type, **overrides):
        folder = make_checkpoint(tmp_path / model_type, model_type, **overrides)
        return load(folder, load_format="dummy").spec.windows

    assert windows("mistral") == (12, 12, 12)
    assert windows("qwen2") == (None, 12, 12)
    assert windows("gemma2") == (12, None, 12)


def test_an_unknown_kind_of_layer_is_named(tmp_path):
    folder = make_checkpoint(tmp_path, "qwen3")
    overrides = {"layer_types": ["full_attention", "linear_attention", "full_attention"]}
    with pytest.raises(UnsupportedModelError, match="linear_attention"):
        load(folder, hf_overrides=overrides)


def test_tiny_models_depend_on_their_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (make_model("phi", seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(first, again)
    assert not torch.equal(first["lm_head.bias"], other["lm_head.bias"])
