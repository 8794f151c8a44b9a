"""The networks by themselves: any grid, activation checkpointing, positions, initial values, errors."""

import math

import pytest
import torch
from tats.models import PretrainVisionTransformer, VisionTransformer, create_model, model_names
from tats.models.mae import take, token_order
from tats.models.positions import position_table, sincos3d_table, sincos_table

# (frames, height, width) in tokens, of patches of 4 x 4 pixels and tubelets of 2 frames.
GRIDS = [(8, 14, 14), (4, 14, 14), (8, 10, 20), (2, 4, 4)]
SMALL = {"patch_size": 4, "encoder_embed_dim": 12, "encoder_depth": 2, "encoder_num_heads": 2, "decoder_embed_dim": 6,
         "decoder_depth": 1, "decoder_num_heads": 2, "qkv_bias": True}


def small_mae(grid=(2, 4, 4), **changes):
    torch.manual_seed(0)
    frames, height, width = grid
    return PretrainVisionTransformer(**{**SMALL, "img_size": (4 * height, 4 * width), "num_frames": 2 * frames,
                                        **changes})


def small_classifier(grid=(2, 4, 4), **changes):
    torch.manual_seed(0)
    frames, height, width = grid
    return VisionTransformer(**{"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "qkv_bias": True,
                                "num_classes": 5, "init_scale": 1.0, "img_size": (4 * height, 4 * width),
                                "all_frames": 2 * frames, **changes})


def clips(grid, channels=3, batch=2):
    frames, height, width = grid
    return torch.randn(batch, channels, 2 * frames, 4 * height, 4 * width)


def half_masked(grid, batch=2):
    num_tokens = math.prod(grid)
    return torch.stack([torch.randperm(num_tokens) for _ in range(batch)]) < num_tokens // 2


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_any_grid_forward_and_backward(grid):
    mae, mask = small_mae(grid), half_masked(grid)
    assert mae.encoder.grid == grid
    prediction = mae(clips(grid), mask)
    assert prediction.shape == (2, math.prod(grid) // 2, 3 * 2 * 4 * 4)
    prediction.square().mean().backward()
    for name, parameter in mae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    model = small_classifier(grid)
    logits = model(clips(grid))
    assert logits.shape == (2, 5) and model.grid == grid
    logits.square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_one_channel():
    grid = (2, 4, 4)
    assert small_mae(grid, encoder_in_chans=1)(clips(grid, 1), half_masked(grid)).shape == (2, 16, 2 * 4 * 4)
    assert small_classifier(grid, in_chans=1)(clips(grid, 1)).shape == (2, 5)


@pytest.mark.parametrize("build", [small_mae, small_classifier])
def test_activation_checkpointing_changes_no_number(build):
    grid = (2, 4, 4)
    videos, mask = clips(grid), half_masked(grid)
    results = []
    for use_checkpoint in (False, True):
        model = build(grid, use_checkpoint=use_checkpoint).train()
        output = model(videos, mask) if build is small_mae else model(videos)
        output.square().sum().backward()
        results.append((output, {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_checkpointed_blocks_are_run_again_in_the_backward_pass():
    calls = []
    for use_checkpoint in (False, True):
        model = small_classifier(use_checkpoint=use_checkpoint)
        count = []
        model.blocks[0].mlp.fc1.register_forward_hook(lambda *_, count=count: count.append(1))
        model(clips((2, 4, 4))).sum().backward()
        calls.append(len(count))
    assert calls == [1, 2]


def test_the_prediction_sees_the_visible_tokens_only():
    grid = (2, 4, 4)
    mae, mask = small_mae(grid).eval(), torch.zeros(1, 32, dtype=torch.bool)
    mask[0, 5:] = True
    videos = clips(grid, batch=1)
    hidden, seen = videos.clone(), videos.clone()
    hidden[:, :, 2:] += 1                       # tokens 16-31, all masked
    seen[:, :, 0, 0, 0] += 1                    # token 0, visible
    assert torch.equal(mae(hidden, mask), mae(videos, mask))
    assert not torch.allclose(mae(seen, mask), mae(videos, mask))


def test_predictions_are_in_ascending_token_order():
    """The first prediction is that of the first masked token: it alone feels that token's position."""
    grid = (2, 4, 4)
    mae, mask = small_mae(grid, decoder_depth=0).eval(), torch.zeros(1, 32, dtype=torch.bool)
    mask[0, [3, 9, 30]] = True
    videos = clips(grid, batch=1)
    before = mae(videos, mask)
    mae.pos_embed[0, 9] += 1
    changed = (mae(videos, mask) != before).any(-1)[0]
    assert changed.tolist() == [False, True, False]


def test_token_order_and_take_are_boolean_indexing():
    masks = torch.stack([torch.randperm(20) < 13 for _ in range(5)])
    order, tokens = token_order(masks), torch.randn(5, 20, 3)
    assert torch.equal(take(tokens, order.masked), tokens[masks].view(5, 13, 3))
    assert torch.equal(take(tokens, order.visible), tokens[~masks].view(5, 7, 3))
    table = tokens[:1]
    assert torch.equal(take(table, order.visible), table.expand(5, -1, -1)[~masks].view(5, 7, 3))


def test_unequal_counts_are_refused_and_none_masked_gives_none():
    mask = torch.zeros(2, 32, dtype=torch.bool)
    assert small_mae()(clips((2, 4, 4)), mask).shape == (2, 0, 96)
    mask[0, :3] = True
    with pytest.raises(ValueError, match=r"\[0, 3\]"):
        small_mae()(clips((2, 4, 4)), mask)


@pytest.mark.parametrize(("num_positions", "dim", "base"), [(7, 6, 10000.0), (3, 5, 2.0), (1568, 8, 10000.0)])
def test_flat_positions_by_the_formula(num_positions, dim, base):
    table = sincos_table(num_positions, dim, base)
    assert table.shape == (1, num_positions, dim) and table.dtype == torch.float32
    for position in {0, 1, num_positions - 1}:
        for channel in range(dim):
            angle = position / base ** (2 * (channel // 2) / dim)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[0, position, channel].item() == pytest.approx(expected, abs=1e-6)


def test_positions_of_each_axis_in_their_own_third():
    grid, dim = (2, 3, 4), 14
    table = sincos3d_table(grid, dim)
    widths = (6, 4, 4)                          # t takes what the even thirds leave
    token = 0
    for t in range(2):
        for h in range(3):
            for w in range(4):
                expected = torch.cat([sincos_table(9, width)[0, place]
                                      for place, width in zip((t, h, w), widths, strict=True)])
                torch.testing.assert_close(table[0, token], expected)
                token += 1


def test_kinds_of_positions():
    grid = (2, 4, 4)
    assert torch.equal(small_mae(grid, pos_embed="sincos3d").encoder.pos_embed, sincos3d_table(grid, 12))
    assert torch.equal(small_mae(grid).pos_embed, sincos_table(32, 6))
    with pytest.raises(ValueError, match="pos_embed .*sincos1d.*sincos3d.*'learned'"):
        position_table("learned", grid, 12, 10000.0)


@pytest.mark.parametrize("build", [small_mae, small_classifier])
def test_no_position_is_saved_and_positions_follow_the_module(build):
    model = build()
    assert not any("pos_embed" in name for name in model.state_dict())
    assert "pos_embed" in dict(model.named_buffers())
    assert model.to(torch.float64).pos_embed.dtype == torch.float64


def test_wrong_clips_and_masks_get_one_line():
    mae = small_mae()
    with pytest.raises(ValueError, match=r"\(B, 3, 4, 16, 16\).*\(2, 3, 8, 16, 16\)"):
        mae(clips((4, 4, 4)), half_masked((2, 4, 4)))
    with pytest.raises(ValueError, match=r" \(3, 4, 16, 16\)"):
        small_classifier()(clips((2, 4, 4))[0])
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 16, 16\)"):
        small_classifier()(clips((2, 4, 4), 1))
    with pytest.raises(ValueError, match=r"\(2, 32\).*\(2, 64\)"):
        mae(clips((2, 4, 4)), half_masked((4, 4, 4)))
    with pytest.raises(ValueError, match=r"\(2, 32\).*\(1, 32\)"):
        mae(clips((2, 4, 4)), half_masked((2, 4, 4), 1))


@pytest.mark.parametrize(("changes", "match"), [
    ({"num_frames": 5}, "num_frames 5 .*2"),
    ({"img_size": 18}, r"\(18, 18\).*\(4, 4\)"),
    ({"encoder_num_heads": 5}, "5 .*12"),
    ({"decoder_num_classes": 7}, "96 .*7"),
    ({"encoder_num_classes": 3}, "encoder_num_classes"),
    ({"use_learnable_pos_emb": True}, "use_learnable_pos_emb"),
    ({"qk_scale": 0.1}, "qk_scale"),
])
def test_sizes_that_do_not_fit_get_one_line(changes, match):
    with pytest.raises(ValueError, match=match):
        small_mae(**changes)


def test_models_by_name():
    assert {"pretrain_videomae_base_patch16_224", "vit_large_patch16_224", "vit_tats_tiny"} <= set(model_names())
    with pytest.raises(ValueError, match="'vit'.*pretrain_tats_tiny"):
        create_model("vit")
    with pytest.raises(ValueError, match="vit_tats_tiny.*'colour'"):
        create_model("vit_tats_tiny", colour=1)
    with pytest.raises(ValueError, match="weights"):
        create_model("vit_tats_tiny", pretrained=True)
    with pytest.raises(ValueError, match="vit_tats_tiny.*'drop_block_rate'"):
        create_model("vit_tats_tiny", drop_block_rate=0.1)
    model = create_model("vit_tats_tiny", num_classes=4, all_frames=8, depth=1, pretrained=False, pretrained_cfg=None,
                         drop_block_rate=None)
    assert model.grid == (4, 6, 6) and len(model.blocks) == 1 and model.head.out_features == 4


@pytest.mark.parametrize("positions", ["sincos1d", "sincos3d"])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", ["pretrain_tats_tiny", "vit_tats_tiny"])
def test_a_network_of_the_meta_device_is_whole_once_it_has_weights(name, assign, positions):
    """No checkpoint holds the positions and the keys' zero bias: they come with the tensors, in the weights' dtype."""
    def build():
        return create_model(name, pos_embed=positions).eval()

    real = build().to(torch.bfloat16 if assign else torch.float64)
    with torch.device("meta"):
        net = build().to(next(real.parameters()).dtype)
    assert all(buffer.is_meta for buffer in net.buffers())
    if not assign:
        net = net.to_empty(device="cpu")
    net.load_state_dict(real.state_dict(), assign=assign)
    found, expected = dict(net.named_buffers()), dict(real.named_buffers())
    assert found.keys() == expected.keys()
    for buffer, value in expected.items():
        assert found[buffer].dtype == value.dtype and torch.equal(found[buffer], value), buffer


@pytest.mark.parametrize(("size", "dim", "depth", "heads"), [("small", 384, 12, 6), ("base", 768, 12, 12),
                                                             ("large", 1024, 24, 16), ("huge", 1280, 32, 16)])
def test_sizes_of_the_table(size, dim, depth, heads):
    with torch.device("meta"):
        mae = create_model(f"pretrain_videomae_{size}_patch16_224", num_frames=8, img_size=(160, 320))
        model = create_model(f"vit_{size}_patch16_224")
    assert mae.encoder.grid == (4, 10, 20) and model.grid == (8, 14, 14)
    for blocks in (mae.encoder.blocks, model.blocks):
        assert (len(blocks), blocks[0].attn.num_heads, blocks[0].norm1.weight.numel()) == (depth, heads, dim)


def test_initial_values_are_videomaes():
    """Its two networks start differently: Xavier in the masked autoencoder, a normal of .02 in the classifier."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=96, depth=2, num_heads=2, qkv_bias=True,
                              all_frames=4, num_classes=400, init_scale=0.001, init_values=0.1)
    assert model.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.05) and not model.head.bias.any()
    block = model.blocks[1]
    assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attn.qkv.weight.abs().max() > 0.06                  # three deviations: not cut off, not uniform
    assert not block.attn.q_bias.any() and not block.attn.v_bias.any() and block.attn.qkv.bias is None
    assert (block.norm1.weight == 1).all() and (block.gamma_1 == 0.1).all()
    mae = small_mae(encoder_embed_dim=96, decoder_embed_dim=1200, decoder_num_heads=2)
    bound = math.sqrt(6 / (96 + 288))           # Xavier uniform of a 96 -> 288 layer
    assert mae.encoder.blocks[1].attn.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    bound = math.sqrt(1 / 96)                   # torch's own for a layer of 96 inputs; Xavier's would be .068
    assert mae.encoder_to_decoder.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert mae.mask_token.abs().max() <= 0.02 and mae.mask_token.std().item() == pytest.approx(0.0108, rel=0.1)
    assert not small_mae(zero_head=True).decoder.head.weight.any() and small_mae().decoder.head.weight.any()
    assert "gamma_1" not in dict(small_mae().encoder.blocks[0].named_parameters())


def test_dropout_is_after_the_mlp_only():
    mlp = small_classifier(drop_rate=0.4).blocks[0].mlp
    assert [module.p for module in mlp.modules() if isinstance(module, torch.nn.Dropout)] == [0.4]


def test_tied_queries_and_keys():
    block = small_classifier(tied_qk_init=2.0).blocks[0]
    queries, keys, values = block.attn.qkv.weight.view(3, 12, 12)
    assert torch.equal(queries, keys)
    torch.testing.assert_close(queries @ queries.T, 4 * torch.eye(12))
    torch.testing.assert_close(block.attn.proj.weight @ values, torch.eye(12))


def test_drop_path_grows_linearly():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0)
             for block in small_classifier(depth=4, drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_pooling_and_head():
    grid = (2, 4, 4)
    model = small_classifier(grid, fc_drop_rate=0.5).eval()
    videos = clips(grid)
    tokens = model.patch_embed(videos) + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model.forward_features(videos), model.fc_norm(tokens.mean(1)))
    torch.testing.assert_close(model(videos), model.head(model.fc_norm(tokens.mean(1))))
    first = small_classifier(grid, use_mean_pooling=False).eval()
    assert first.fc_norm is None
    torch.testing.assert_close(first.forward_features(videos), first.norm(tokens)[:, 0])
    assert small_classifier(grid, num_classes=0)(videos).shape == (2, 12)


def test_videomae_v2s_giant():
    """Tensors and sizes of VideoMAEv2's ViT-g, counted from its published layout; nothing is allocated."""
    with torch.device("meta"):
        model = create_model("vit_giant_patch14_224", num_classes=710)
        mae = create_model("pretrain_videomae_giant_patch14_224")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # patch_embed, 40 blocks of (2 norms, qkv, q_bias, v_bias, proj, 2 linear layers), fc_norm, head
    assert len(shapes) == 2 + 40 * (4 + 3 + 2 + 4) + 2 + 2
    assert shapes["patch_embed.proj.weight"] == (1408, 3, 2, 14, 14)
    assert shapes["blocks.39.mlp.fc1.weight"] == (6144, 1408) and shapes["blocks.0.attn.q_bias"] == (1408,)
    assert model.patch_embed.num_patches == 8 * 16 * 16
    shapes = {name: tuple(value.shape) for name, value in mae.state_dict().items()}
    assert shapes["decoder.head.weight"] == (14 * 14 * 3 * 2, 512)
    assert shapes["decoder.blocks.3.mlp.fc1.weight"] == (2234, 512) and "decoder.blocks.4.norm1.weight" not in shapes
    assert mae.encoder.blocks[0].attn.num_heads == 16 and mae.decoder.blocks[0].attn.num_heads == 8
