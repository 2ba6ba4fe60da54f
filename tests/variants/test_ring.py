"""Long contexts: blockwise attention, the ring of processes, packing and mixed sequences (LWM, arXiv:2402.08268), box by box."""

import pytest
import torch
import torch.nn.functional as F
from ring_processes import layer_around_the_ring, peers_of_messages
from tiny_dynamics import built, clip
from torch.utils._python_dispatch import TorchDispatchMode

from dynamics_lab import exactness
from dynamics_variants.ring.blockwise import Layout, RunningSoftmax, blockwise_attention, causal_layout, needed_blocks
from dynamics_variants.ring.feed_forward import chunked_feed_forward
from dynamics_variants.ring.growth import grow
from dynamics_variants.ring.modalities import Vocabulary, modality_weights
from dynamics_variants.ring.packing import example_weights, pack, pad
from dynamics_variants.ring.ring import contiguous_part, striped_part
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import SwiGLU, attention

# ---- LW1: blockwise attention is dense attention ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", exactness.LAYOUTS)
def test_blockwise_attention_equals_dense_attention_forward_and_backward(layout):
    row = exactness.compare_blockwise(layout, 200)
    assert row["output"] < 1e-5 and row["gradients"] < 1e-4


def test_the_running_softmax_by_hand():
    """Scores ln 1, ln 3 in one block, ln 4 in the next: weights 1/8, 3/8, 4/8 of the values 8, 16, 32 make 1 + 6 + 16 = 23."""
    queries, values = torch.ones(1, 1, 1, 1), torch.tensor([8.0, 16.0, 32.0]).view(1, 1, 3, 1)
    keys = torch.tensor([1.0, 3.0, 4.0]).log().view(1, 1, 3, 1)
    running = RunningSoftmax(queries)
    everything = Layout(torch.zeros(3, dtype=torch.int64))
    running.add(queries, keys[:, :, :2], values[:, :, :2], needed_blocks(everything[:1], everything[:2], 2))
    assert running.finish(torch.float32)[0].item() == pytest.approx(1 / 4 * 8 + 3 / 4 * 16)
    running.add(queries, keys[:, :, 2:], values[:, :, 2:], needed_blocks(everything[:1], everything[2:], 2))
    output, log_sum = running.finish(torch.float32)
    assert output.item() == pytest.approx(23) and log_sum.exp().item() == pytest.approx(8)


def test_huge_scores_do_not_overflow():
    queries = torch.full((1, 1, 6, 4), 40.0)
    values = torch.arange(6.0).view(1, 1, 6, 1).expand(-1, -1, -1, 4)
    mixed = blockwise_attention(queries, queries, values, "causal", size=2)  # every score is 3,200, and e^3,200 is infinite
    assert torch.allclose(mixed[0, 0, :, 0], torch.arange(6.0) / 2)


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_no_gradient():
    """Its own key is in no block here: what a ring meets when the first block that arrives is wholly hidden."""
    queries, keys, values = torch.randn(3, 1, 1, 4, 8)
    running = RunningSoftmax(queries)
    early, late = Layout(torch.arange(4)), Layout(torch.arange(2, 6))
    running.add(queries, keys, values, needed_blocks(early, late, 2))  # queries 0 and 1 see none of the keys 2 to 5
    output, log_sum = running.finish(torch.float32)
    assert (output[0, 0, :2] == 0).all() and output[0, 0, 2:].ne(0).all() and output.isfinite().all()
    assert log_sum[0, 0].isinf().tolist() == [True, True, False, False]


def test_blocks_above_the_diagonal_are_left_out_and_only_those_on_it_are_masked():
    blocks = [*needed_blocks(causal_layout(6), causal_layout(6), 2)]
    places = [(block.queries.start, block.keys.start) for block in blocks]
    assert places == [(0, 0), (2, 0), (2, 2), (4, 0), (4, 2), (4, 4)]
    assert [block.mask is not None for block in blocks] == [True, False, True, False, False, True]
    examples = torch.tensor([[0, 0, 0, 0, 1, 1]])
    apart = needed_blocks(causal_layout(6, examples=examples), causal_layout(6, examples=examples), 2)
    assert [(block.queries.start, block.keys.start) for block in apart] == [(0, 0), (2, 0), (2, 2), (4, 4)]


def test_a_layout_is_its_mask():
    assert causal_layout(3).mask().int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    two_frames = Layout(torch.tensor([0, 0, 1, 1]))
    assert two_frames.mask().int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    packed = causal_layout(3, examples=torch.tensor([[0, 0, 1]]))
    assert packed.mask().int().tolist() == [[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]]


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that a tensor had, of all that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("layout", exactness.LAYOUTS)
def test_no_tensor_has_the_size_of_all_scores(layout):
    """2 sequences, 4 heads and 512 tokens have 8 * 512 * 512 scores; the inputs have 8 * 512 * 32 numbers, blocks less."""
    tensors, layout = exactness.random_tensors(512), exactness.layout_of(layout, 512)
    with LargestTensor() as blockwise:
        exactness.with_gradients(lambda q, k, v: blockwise_attention(q, k, v, layout, size=64), tensors)
    with LargestTensor() as dense:
        exactness.with_gradients(lambda q, k, v: attention(q, k, v, layout.mask()), tensors)
    assert dense.largest == 8 * 512 * 512
    assert blockwise.largest == 8 * 512 * 32


def test_a_step_of_a_rollout_and_a_mask_that_is_a_tensor_are_left_to_dense_attention():
    queries, keys, values = torch.randn(3, 1, 2, 5, 8)
    mask = torch.rand(5, 5) > 0.5
    mask[:, 0] = True
    assert torch.equal(blockwise_attention(queries, keys, values, mask), attention(queries, keys, values, mask))
    one = queries[:, :, -1:]
    assert torch.equal(blockwise_attention(one, keys, values), attention(one, keys, values))
    assert torch.allclose(blockwise_attention(queries, keys, values), attention(queries, keys, values), atol=1e-6)


def test_bfloat16_inputs_are_summed_in_float32():
    tensors = exactness.random_tensors(200)
    exact = attention(*(x.bfloat16().float() for x in tensors[:3]), mask="causal")
    with torch.autocast("cpu", torch.bfloat16):
        blockwise = blockwise_attention(*(x.bfloat16() for x in tensors[:3]), mask="causal", size=64)
    assert blockwise.dtype == torch.bfloat16
    assert (blockwise.float() - exact).abs().max() < 0.03  # values up to 4 are rounded to steps of 1/64


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_gpt_trains_with_it_and_never_holds_all_scores(positions):
    """Sixty frames of six tokens are two blocks. Logits differ by less than 1e-5, gradients by less than 1e-4."""
    logits, gradients, largest = {}, {}, {}
    sizes = {"num_frames": 60, "context_frames": 60, "time_rows": 60, "actions": "true"}
    for attend in ("dense", "blockwise"):
        model = built("gpt", positions=positions, attention=attend, **sizes)
        frames, actions = clip(model, batch_size=1, num_frames=60)
        with LargestTensor() as seen:
            logits[attend] = model.predict(frames, actions)
            loss = F.cross_entropy(logits[attend].flatten(0, 2), frames[:, 1:].flatten())
            gradients[attend] = torch.autograd.grad(loss, [*model.parameters()])
        largest[attend] = seen.largest
    assert torch.allclose(logits["dense"], logits["blockwise"], rtol=0, atol=1e-5)
    for dense, blockwise in zip(gradients["dense"], gradients["blockwise"], strict=True):
        assert torch.allclose(dense, blockwise, rtol=0, atol=1e-4)
    assert largest["dense"] == 2 * 360 * 360 and largest["blockwise"] == 2 * 256 * 256  # two heads


# ---- LW2: a ring of processes, and feed-forward networks in chunks -------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 4])
def ring(request):
    return request.param, exactness.in_processes(request.param, exactness.compare_ring, 96)


def test_the_ring_equals_dense_attention_forward_and_backward(ring):
    count, rows = ring
    assert {(row["layout"], row["parts"]) for row in rows} == {(x, y) for x in exactness.LAYOUTS for y in exactness.PARTS}
    for row in rows:
        assert row["processes"] == count and row["output"] < 1e-5 and row["gradients"] < 1e-4, row


def test_only_neighbors_exchange_messages():
    sent, received = exactness.in_processes(4, peers_of_messages)
    assert sent == [[1], [2], [3], [0]] and received == [[3], [0], [1], [2]]


def test_a_layer_that_no_process_holds_has_the_gradients_of_one_that_a_process_holds():
    differences = exactness.in_processes(2, layer_around_the_ring)
    assert set(differences) == {"loss", "to_qkv", "gate_and_value"} and max(differences.values()) < 1e-5


def test_parts_cover_the_sequence_and_stripes_share_the_causal_work():
    for part in (contiguous_part, striped_part):
        assert sorted(torch.cat([torch.arange(12)[part(12, rank, 3)] for rank in range(3)]).tolist()) == [*range(12)]
        with pytest.raises(ValueError, match="10 tokens are not a multiple of 3"):
            part(10, 0, 3)
    work = {
        part: [causal_layout(12).mask()[part(12, rank, 3)].sum().item() for rank in range(3)]
        for part in (contiguous_part, striped_part)
    }
    assert work[contiguous_part] == [10, 26, 42] and work[striped_part] == [22, 26, 30]


def test_a_feed_forward_network_in_chunks_gives_the_same_and_keeps_only_its_input():
    torch.manual_seed(0)
    network, x = SwiGLU(32), torch.randn(2, 50, 32, requires_grad=True)
    kept, results = {}, {}
    for name, run in {"whole": network, "chunked": lambda x: chunked_feed_forward(network, x, 16)}.items():
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, saved=saved: saved.append(tensor) or tensor, lambda x: x):
            output = run(x)
        gradients = torch.autograd.grad(output.square().sum(), [x, *network.parameters()])
        results[name], kept[name] = [output, *gradients], sum(tensor.numel() for tensor in saved if tensor.shape[-1] != 32)
    for whole, chunked in zip(results["whole"], results["chunked"], strict=True):
        assert torch.allclose(whole, chunked, rtol=1e-4, atol=1e-4)
    assert kept["whole"] > 2 * 50 * 32 * 5 and kept["chunked"] == 0


def test_pytorchs_own_context_parallelism_has_no_kernel_for_processors():
    """If this fails after an update of PyTorch, there is one now, and the variant's README has to be written again."""
    error = exactness.in_processes(2, exactness.try_context_parallel, 64)["error"]
    assert "_scaled_dot_product_flash_attention_for_cpu.default does not have a sharding strategy" in error


# ---- LW3: packing --------------------------------------------------------------------------------------------------------


SEQUENCES = [torch.arange(1, 1 + length) for length in (3, 5, 2, 3)]


def test_sequences_go_into_the_first_row_with_room():
    packed = pack(SEQUENCES, 6)
    assert packed.tokens.tolist() == [[1, 2, 3, 1, 2, 0], [1, 2, 3, 4, 5, 0], [1, 2, 3, 0, 0, 0]]
    assert packed.examples.tolist() == [[0, 0, 0, 2, 2, -1], [1, 1, 1, 1, 1, -1], [3, 3, 3, -1, -1, -1]]
    assert packed.positions[0].tolist() == [0, 1, 2, 0, 1, 0]
    assert len(pad(SEQUENCES, 6).tokens) == 4
    with pytest.raises(InputError, match="example 1 has 5 tokens, and a row has 4"):
        pack(SEQUENCES, 4)


def test_weights_make_every_example_count_the_same():
    examples, targets = torch.tensor([[0, 0, 0, 1, 1, -1]]), torch.tensor([[0, 1, 1, 0, 1, 1]]).bool()
    assert example_weights(examples, targets).tolist() == [[0, 0.25, 0.25, 0, 0.5, 0]]
    without = torch.tensor([[0, 1, 1, 0, 0, 1]]).bool()  # the second example has no target: the first counts fully
    assert example_weights(examples, without).tolist() == [[0, 0.5, 0.5, 0, 0, 0]]


class OneLayer(torch.nn.Module):
    """Embedding, one attention, output: enough to notice a neighbor in the same row."""

    def __init__(self):
        super().__init__()
        self.embedding, self.qkv, self.output = torch.nn.Embedding(9, 16), torch.nn.Linear(16, 48), torch.nn.Linear(16, 9)

    def token_losses(self, tokens, layout):
        """(R, S): the loss of each token, predicted from those before it; 0 for the first."""
        queries, keys, values = self.qkv(self.embedding(tokens))[:, None].chunk(3, dim=-1)
        logits = self.output(blockwise_attention(queries, keys, values, layout, size=4)[:, 0])
        losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        return F.pad(losses.view(len(tokens), -1), (1, 0))


def test_the_packed_loss_is_the_padded_loss_and_so_are_its_gradients():
    torch.manual_seed(0)
    model, found = OneLayer(), {}
    for name, batch in {"packed": pack(SEQUENCES, 8), "padded": pad(SEQUENCES, 8)}.items():
        losses = model.token_losses(batch.tokens, batch.layout)
        targets = (batch.positions > 0) & (batch.examples >= 0)
        loss = (losses * example_weights(batch.examples, targets)).sum()
        found[name] = [loss, *torch.autograd.grad(loss, [*model.parameters()])]
        if name == "packed":
            unmasked = model.token_losses(batch.tokens, causal_layout(8))
            assert len(batch.tokens) == 2 and not torch.allclose(unmasked[targets], losses[targets])
            assert not torch.allclose(losses[targets].mean(), loss)  # the mean over tokens: long examples count more
    for packed, padded in zip(found["packed"], found["padded"], strict=True):
        assert torch.allclose(packed, padded, atol=1e-6)
    one_by_one = [pad([sequence], len(sequence)) for sequence in SEQUENCES]
    means = torch.stack([model.token_losses(one.tokens, one.layout)[0, 1:].mean() for one in one_by_one])
    assert torch.allclose(found["packed"][0], means.mean(), atol=1e-6)


# ---- LW4: growth ---------------------------------------------------------------------------------------------------------


def test_the_context_grows_and_the_base_with_it():
    stages = grow(256, 4_096, 4, 10_000.0, 10.0)
    assert [(stage.num_tokens, stage.rope_base) for stage in stages] == [(256, 1e4), (1_024, 1e5), (4_096, 1e6)]
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    with pytest.raises(InputError, match="steps of 4 times do not lead to 1000; they lead to 1024"):
        grow(256, 1_000, 4, 1.0, 1.0)


# ---- LW5: text and video in one sequence ----------------------------------------------------------------------------------


def test_a_video_stands_between_markers_and_its_last_frame_ends_differently():
    vocabulary = Vocabulary(num_words=10, num_codes=5)  # words 0-9, <vision> 10, </vision> 11, codes 12-16, eof 17, eov 18
    video = vocabulary.video(torch.tensor([[0, 4], [1, 1]]))
    assert video.tolist() == [10, 12, 16, 17, 13, 13, 18, 11] and vocabulary.size == 19
    assert vocabulary.is_vision(video).int().tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    words, codes = torch.tensor([3, 7]), torch.tensor([[2]])
    assert vocabulary.pair(words, codes, text_first=True).tolist() == [3, 7, 10, 14, 18, 11]
    assert vocabulary.pair(words, codes, text_first=False).tolist() == [10, 14, 18, 11, 3, 7]


def test_text_and_video_count_the_same_and_a_kind_without_targets_is_not_a_loss_of_zero():
    examples = torch.tensor([[0, 0, 0, 0, 1, 1]])
    vision, targets = torch.tensor([[0, 1, 1, 1, 0, 0]]).bool(), torch.tensor([[1, 0, 1, 1, 1, 1]]).bool()
    weights = modality_weights(examples, targets, vision)
    # video: one example, two targets, half of the loss. Text: two examples of one and two targets, half of the loss
    assert torch.allclose(weights, torch.tensor([[1 / 4, 0, 1 / 4, 1 / 4, 1 / 8, 1 / 8]]))
    only_text = modality_weights(examples, targets & ~vision, vision)
    assert torch.allclose(only_text, torch.tensor([[1 / 2, 0, 0, 0, 1 / 4, 1 / 4]]))
