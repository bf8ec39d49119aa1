"""The slow, obvious versions that the tests compare with."""


def sorted_activations(maps, images, k, per_image=1):
    """Values, images and positions of the k strongest of each unit, by sorting all activations of all images.

    ``maps`` is (N, U, H, W), ``images`` the index of each. Lists: [unit][rank], fewer than k where fewer are positive.
    """
    found = []
    for unit in range(maps.shape[1]):
        entries = []
        for row, image in enumerate(images):
            own = [(-maps[row, unit, y, x].item(), int(image), y, x)
                   for y in range(maps.shape[2]) for x in range(maps.shape[3]) if maps[row, unit, y, x] > 0]
            entries += sorted(own)[:per_image]
        found.append([(-value, image, (y, x)) for value, image, y, x in sorted(entries)[:k]])
    return found
