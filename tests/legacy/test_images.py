"""Picture iterators: which batches they give, how often, and by which way."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fitstream.errors import FitstreamError, PlanError, SampleError
from fitstream.legacy import image_batches
from fitstream.legacy.images import DirectoryIterator, ImageDataGenerator, Iterator, NumpyArrayIterator
from fitstream.legacy.sequence import is_sequence

MakePictures = Callable[..., Path]

AUGMENTED: dict[str, Any] = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 5,
    "zoom_range": 0.2,
    "channel_shift_range": 10,
    "brightness_range": (0.5, 1.5),
    "horizontal_flip": True,
    "rescale": 1 / 255,
}


@pytest.fixture
def photos(tmp_path: Path, make_pictures: MakePictures) -> str:
    return str(make_pictures(tmp_path / "photos", count=10))


def of_photos(photos: str, generator: ImageDataGenerator | None = None, **options: Any) -> DirectoryIterator:
    options = {"target_size": (16, 16), "batch_size": 6, "seed": 3} | options
    return (generator or ImageDataGenerator(**AUGMENTED)).flow_from_directory(photos, **options)


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("how", [{"workers": 0}, {"workers": 3, "processes": 0}, {"workers": 2, "processes": 1}])
def test_loaders_give_the_batches_that_the_iterator_makes_itself(photos: str, how: dict[str, int]) -> None:
    iterator = of_photos(photos)
    with iterator.as_dataset().loader(memory="200 MB", **how) as loader:
        for _ in range(2):
            for place, batch in enumerate(loader):
                assert same(batch, iterator[place])
            iterator.on_epoch_end()


def test_several_threads_make_the_same_batch(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = of_photos(photos, batch_size=17)
    monkeypatch.setattr(image_batches, "available_cores", lambda: 1)
    expected = [alone[place] for place in range(2)]
    monkeypatch.setattr(image_batches, "available_cores", lambda: 3)
    together = of_photos(photos, batch_size=17)
    assert all(same(together[place], expected[place]) for place in range(2))


def test_the_first_bad_sample_is_named_by_whichever_thread(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_batches, "available_cores", lambda: 3)
    for name in ("cats/004.jpg", "dogs/001.jpg"):
        Path(photos, name).write_bytes(b"no picture")
    iterator = of_photos(photos, batch_size=20, shuffle=False)
    with pytest.raises(SampleError, match=r"cats/004\.jpg"):
        iterator[0]


def test_functions_of_the_program_are_called_in_one_thread(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_batches, "available_cores", lambda: 3)
    threads = set()

    def note(x: Any) -> Any:
        threads.add(threading.get_ident())
        return x

    next(of_photos(photos, ImageDataGenerator(preprocessing_function=note), batch_size=20))
    assert threads == {threading.get_ident()}


def test_next_goes_through_passes_that_differ_and_have_each_sample_once(photos: str) -> None:
    iterator = of_photos(photos, ImageDataGenerator(), class_mode="sparse")
    passes = []
    for _ in range(3):
        batches = [next(iterator) for _ in range(len(iterator))]
        assert [len(x) for x, _ in batches] == [6, 6, 6, 2]
        passes.append(np.concatenate([x for x, _ in batches]))
    assert len({one.tobytes() for one in passes}) == 3
    assert len({np.sort(one.reshape(20, -1), axis=0).tobytes() for one in passes}) == 1


def test_next_and_places_agree_in_the_same_pass(photos: str) -> None:
    one, other = of_photos(photos), of_photos(photos)
    assert all(same(next(one), other[place]) for place in range(len(other)))


def test_pictures_and_masks_with_one_seed_stay_together(photos: str) -> None:
    changed = ImageDataGenerator(rotation_range=90, width_shift_range=0.2, vertical_flip=True)
    pair = zip(
        of_photos(photos, changed, class_mode=None, seed=1),
        of_photos(photos, changed, class_mode=None, seed=1, color_mode="grayscale"),
        strict=False,
    )
    for _ in range(7):
        picture, mask = next(pair)
        grey = picture @ np.float32([0.299, 0.587, 0.114])
        assert np.abs(grey - mask[..., 0]).mean() < 1  # of 255; pictures of noise that part differ by tens


def test_seeds_change_transformations_without_shuffle_too(photos: str) -> None:
    one, again, other = (of_photos(photos, shuffle=False, seed=seed)[0][0] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_each_pass_transforms_anew(photos: str) -> None:
    iterator = of_photos(photos, shuffle=False)
    first = iterator[0][0]
    iterator.on_epoch_end()
    assert not np.array_equal(first, iterator[0][0])


def test_a_second_dataset_goes_on_with_other_passes(photos: str) -> None:
    iterator = of_photos(photos)
    first, second = iterator.as_dataset()[0], iterator.as_dataset()[0]
    assert same(first, of_photos(photos).as_dataset()[0])
    assert not same(first, second)


def test_reset_begins_with_the_first_batch_again(photos: str) -> None:
    iterator = of_photos(photos, ImageDataGenerator(), shuffle=False)
    first = next(iterator)
    assert iterator.batch_index == 1
    assert iterator.total_batches_seen == 1
    iterator.reset()
    assert iterator.batch_index == 0
    assert same(next(iterator), first)


def test_a_pickled_iterator_goes_on_where_it_was(photos: str) -> None:
    iterator = of_photos(photos)
    next(iterator)
    copy = pickle.loads(pickle.dumps(iterator))
    assert same(next(copy), next(iterator))
    assert copy.filenames == iterator.filenames


def test_threads_get_each_batch_once(photos: str) -> None:
    iterator = of_photos(photos, ImageDataGenerator(), batch_size=1, class_mode=None)
    got: list[bytes] = []

    def take() -> None:
        got.extend(next(iterator).tobytes() for _ in range(5))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(next(iterator).tobytes() for _ in range(20))


def test_an_iterator_is_a_sequence_with_one_pass_of_batches(photos: str) -> None:
    iterator = of_photos(photos)
    assert is_sequence(iterator)
    assert len(iterator) == 4
    assert same(iterator[-1], iterator[3])
    with pytest.raises(ValueError, match="no batch 4: a pass has 4"):
        iterator[4]


def test_index_array_is_the_order_of_the_pass(photos: str) -> None:
    iterator = of_photos(photos, ImageDataGenerator(), class_mode="sparse")
    labels = np.concatenate([iterator[place][1] for place in range(len(iterator))])
    assert sorted(iterator.index_array) == list(range(20))
    assert labels.tolist() == iterator.classes[iterator.index_array].tolist()


def test_folders_are_told_and_listed_as_keras_did(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(photos) / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(Path(photos) / ".hidden" / "a.png")
    (Path(photos) / "cats" / "notes.txt").write_text("no picture")
    iterator = of_photos(photos)
    assert capsys.readouterr().out == "Found 20 images belonging to 2 classes.\n"
    assert iterator.class_indices == {"cats": 0, "dogs": 1}
    assert iterator.filenames[0] == "cats/000.png"
    assert iterator.filepaths[0] == f"{photos}/cats/000.png"
    assert iterator.classes.tolist() == [0] * 10 + [1] * 10
    assert (iterator.samples, iterator.n, iterator.nb_sample, iterator.N) == (20, 20, 20, 20)
    assert (iterator.num_classes, iterator.nb_class) == (2, 2)
    assert iterator.image_shape == (16, 16, 3)


def test_a_folder_without_pictures_says_so_when_it_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iterator = of_photos(str(tmp_path))
    assert capsys.readouterr().out == "Found 0 images belonging to 0 classes.\n"
    assert len(iterator) == 0
    for use in (iterator.as_dataset, lambda: next(iterator)):
        with pytest.raises(PlanError, match="has no pictures"):
            use()


def test_subsets_divide_each_class(photos: str) -> None:
    generator = ImageDataGenerator(validation_split=0.3)
    training = of_photos(photos, generator, subset="training")
    validation = of_photos(photos, generator, subset="validation")
    assert (training.samples, validation.samples) == (14, 6)
    assert validation.classes.tolist() == [0] * 3 + [1] * 3
    assert not set(training.filenames) & set(validation.filenames)


@pytest.mark.parametrize(
    ("class_mode", "expected"),
    [
        ("sparse", np.float32([0, 0, 1, 1])),
        ("binary", np.float32([0, 0, 1, 1])),
        ("categorical", np.float32([[1, 0], [1, 0], [0, 1], [0, 1]])),
    ],
)
def test_labels_have_the_form_of_their_class_mode(
    tmp_path: Path, make_pictures: MakePictures, class_mode: str, expected: Any
) -> None:
    photos = str(make_pictures(tmp_path / "few", count=2))
    _, y = of_photos(photos, class_mode=class_mode, shuffle=False)[0]
    assert y.dtype == np.float32
    assert np.array_equal(y, expected)


def test_inputs_are_their_own_targets_or_come_alone(photos: str) -> None:
    x, y = of_photos(photos, class_mode="input")[0]
    assert np.array_equal(x, y)
    assert of_photos(photos, class_mode=None)[0].shape == (6, 16, 16, 3)


def test_channels_first_is_the_transposed_picture(photos: str) -> None:
    last = of_photos(photos, ImageDataGenerator(**AUGMENTED, data_format="channels_last"))
    first = of_photos(photos, ImageDataGenerator(**AUGMENTED, dim_ordering="th"))
    assert first.image_shape == (3, 16, 16)
    assert np.allclose(first[0][0].transpose(0, 2, 3, 1), last[0][0])


def test_values_are_0_to_255_without_rescale(photos: str) -> None:
    x, _ = of_photos(photos, ImageDataGenerator())[0]
    assert x.dtype == np.float32
    assert x.max() > 100
    assert np.array_equal(x, np.rint(x))


def test_an_unreadable_picture_is_named(photos: str) -> None:
    Path(photos, "dogs", "001.jpg").write_bytes(b"no picture")
    iterator = of_photos(photos, shuffle=False)
    with pytest.raises(SampleError, match=r"dogs/001\.jpg"):
        iterator[1]
    with iterator.as_dataset().loader(workers=0) as loader, pytest.raises(SampleError, match=r"dogs/001\.jpg"):
        list(loader)


def test_what_was_handed_out_is_saved(photos: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    iterator = of_photos(photos, save_to_dir=str(folder), save_prefix="aug", save_format="png")
    for place in range(len(iterator)):
        iterator[place]
    saved = sorted(folder.iterdir())
    assert {path.name.split("_")[1] for path in saved} == {str(index) for index in range(20)}
    with Image.open(saved[0]) as image:
        assert image.size == (16, 16)
    with iterator.as_dataset().loader(workers=2, processes=0) as loader:
        list(loader)
    assert len(list(folder.iterdir())) == 20


def test_preprocessing_gets_each_picture_floating(photos: str) -> None:
    seen = []

    def half(x: Any) -> Any:
        seen.append((x.shape, x.dtype))
        return x / 2

    plain = of_photos(photos, ImageDataGenerator(), shuffle=False)[0][0]
    halved = of_photos(photos, ImageDataGenerator(preprocessing_function=half), shuffle=False)[0][0]
    assert np.array_equal(halved, plain / 2)
    assert seen == [((16, 16, 3), np.float32)] * 6


class Doubling(ImageDataGenerator):
    def standardize(self, x: Any) -> Any:
        return super().standardize(x) * 2


class Darker(ImageDataGenerator):
    def random_transform(self, x: Any, seed: int | None = None) -> Any:
        return x * 0.5


@pytest.mark.parametrize(("kind", "factor"), [(Doubling, 2), (Darker, 0.5)])
def test_methods_of_a_subclass_are_called(photos: str, kind: type[ImageDataGenerator], factor: float) -> None:
    plain = of_photos(photos, ImageDataGenerator(), shuffle=False)
    changed = of_photos(photos, kind(), shuffle=False)
    assert np.array_equal(changed[0][0], plain[0][0] * factor)
    assert np.array_equal(changed.as_dataset()[0][0], plain[0][0] * factor)


class Pairs(DirectoryIterator):
    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        x, y = super()._get_batches_of_transformed_samples(index_array)
        return [x, x], y


def test_an_iterator_that_makes_batches_its_own_way_has_no_dataset(photos: str) -> None:
    iterator = Pairs(photos, ImageDataGenerator(), target_size=(16, 16), batch_size=4)
    assert iterator.as_dataset is None
    for batch in (next(iterator), iterator[0]):
        assert isinstance(batch[0], list)


def test_arrays_are_not_copied_as_a_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(20 * 8 * 8 * 3, dtype=np.uint8).reshape(20, 8, 8, 3))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    iterator = ImageDataGenerator().flow(x, np.arange(20), batch_size=5, shuffle=False)
    assert iterator.x is x
    batch, y = iterator[1]
    assert batch.dtype == np.float32
    assert np.array_equal(batch, x[5:10])
    assert y.tolist() == [5, 6, 7, 8, 9]


def test_arrays_go_through_a_loader_with_weights_and_inputs_beside() -> None:
    x, beside = np.random.default_rng(0).uniform(0, 255, (10, 8, 8, 3)), np.arange(10.0)
    weights = np.linspace(0, 1, 10)
    iterator = ImageDataGenerator(**AUGMENTED).flow((x, beside), beside * 2, 4, sample_weight=weights, seed=5)
    inputs, y, weight = iterator[0]
    assert isinstance(inputs, list)
    assert np.array_equal(y, inputs[1] * 2)
    assert np.allclose(weight, inputs[1] / 9)
    with iterator.as_dataset().loader(workers=2, processes=0) as loader:
        got = next(iter(loader))
    assert same((*got[0], *got[1:]), (*inputs, y, weight))


def test_the_old_names_of_arguments_work() -> None:
    x = np.zeros((4, 3, 8, 8), np.uint8)
    iterator = ImageDataGenerator(dim_ordering="th").flow(X=x, y=np.arange(4), batch_size=2)
    assert iterator[0][0].shape == (2, 3, 8, 8)


def test_array_subsets_have_the_same_classes() -> None:
    x, generator = np.zeros((10, 4, 4, 1)), ImageDataGenerator(validation_split=0.2)
    assert len(generator.flow(x, subset="validation").x) == 2
    assert len(generator.flow(x, subset="training").x) == 8
    with pytest.raises(ValueError, match="different classes"):
        generator.flow(x, np.arange(10), subset="training")
    assert generator.flow(x, np.arange(10), subset="training", ignore_class_split=True).y[0] == 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ImageDataGenerator(zoom_range=(1, 2, 3)), "zoom_range"),
        (lambda: ImageDataGenerator(brightness_range=2), "brightness_range"),
        (lambda: ImageDataGenerator(validation_split=2), "validation_split"),
        (lambda: ImageDataGenerator(data_format="channels_middle"), "data_format"),
        (lambda: ImageDataGenerator().flow(np.zeros((4, 4))), "four axes"),
        (lambda: ImageDataGenerator().flow(np.zeros((4, 4, 4, 3)), np.zeros(3)), "4 samples, but y has 3"),
        (lambda: ImageDataGenerator().flow(np.zeros((4, 4, 4, 3)), batch_size=0), "batch_size"),
        (lambda: ImageDataGenerator().flow(np.zeros((4, 4, 4, 3)), seed=-1), "seed"),
        (lambda: ImageDataGenerator().flow(np.zeros((4, 4, 4, 3)), subset="test"), "subset"),
        (lambda: ImageDataGenerator().fit(np.zeros((4, 4))), "four axes"),
    ],
)
def test_impossible_arguments_are_refused(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        make()
    assert isinstance(caught.value, PlanError)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"class_mode": "raw"}, "class_mode"),
        ({"color_mode": "cmyk"}, "color_mode"),
        ({"interpolation": "best"}, "interpolation"),
        ({"target_size": None}, "target_size"),
        ({"target_size": (0, 4)}, "image_size"),
        ({"subset": "test"}, "subset"),
    ],
)
def test_impossible_arguments_of_folders_are_refused(photos: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        of_photos(photos, **options)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FitstreamError, match="nowhere"):
        of_photos(str(tmp_path / "nowhere"))


def test_a_named_class_without_a_folder_is_warned_of(photos: str) -> None:
    with pytest.warns(UserWarning, match="'birds' has no folder"):
        iterator = of_photos(photos, classes=["birds", "dogs"])
    assert iterator.class_indices == {"birds": 0, "dogs": 1}
    assert set(iterator.classes.tolist()) == {1}


def test_options_that_need_fit_warn_until_it_was_called(photos: str) -> None:
    x = np.random.default_rng(0).uniform(0, 255, (6, 4, 4, 3)).astype(np.float32)
    generator = ImageDataGenerator(featurewise_center=True)
    with pytest.warns(UserWarning, match="fit"):
        generator.standardize(x[0].copy())
    generator.fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = generator.flow(x, batch_size=6, shuffle=False)[0]
    assert np.allclose(batch.mean(axis=(0, 1, 2)), 0, atol=1e-4)


def test_a_keras_array_iterator_is_made_by_its_class_too() -> None:
    iterator = NumpyArrayIterator(np.zeros((4, 4, 4, 3)), np.arange(4), None, batch_size=2)
    assert iterator[1][1].tolist() == [2, 3]


class Squares(Iterator):
    """An iterator of a program's own over numbers."""

    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        return np.square(index_array)


def test_a_subclass_of_the_plain_iterator_makes_batches_of_places() -> None:
    squares = Squares(5, 2, False, None)
    assert [next(squares).tolist() for _ in range(4)] == [[0, 1], [4, 9], [16], [0, 1]]
    assert squares[2].tolist() == [16]
    assert next(squares.index_generator).tolist() == [2, 3]


def test_a_plain_iterator_may_be_empty() -> None:
    assert next(Squares(0, 0, False, None)).size == 0
    assert len(Squares(0, 0, False, None)) == 0
