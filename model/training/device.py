"""Training batches rendered by torch on the training device, for devices that outrun the processor.

The clips are those of ``synthesis``: the same plans, the same motion, the same look, rendered for a
whole batch at once. ``synthesis`` is the reference that this module is tested against.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.training.clips import LEVELS, Patient
from model.training.synthesis import LOST_CONTACT, ClipPlan, Corruption, known_structures

DETAIL_SIGMA_PX = 3.0
BLUR_REACH_PX = 16


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBatch:
    """``synthesis.Batch`` as tensors on the training device."""

    images_BTHW: Tensor
    labels_BTNHW: Tensor
    presence_BT: Tensor
    known_BN: NDArray[np.bool_] | None = None


class DeviceSynthesis:
    """All patients on the device, and clips of them on request."""

    def __init__(self, patients: Sequence[Patient], device: torch.device) -> None:
        self.device = device
        self._patients = patients
        self.side = patients[0].ed.image_HW.shape[0]
        stills = [still for patient in patients for still in (patient.ed, patient.es)]
        images = np.stack([still.image_HW for still in stills])
        labels = np.stack([_halved(still.labels_HWN) for still in stills])
        fields = np.stack([patient.fields_LSYX2 for patient in patients])
        count = len(patients)
        self._images_PSHW = self._put(images).unflatten(0, (count, 2))
        self._labels_PSNHW = self._put(labels).unflatten(0, (count, 2))
        self._fields_PLS2YX = self._put(fields.transpose(0, 1, 2, 5, 3, 4))

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _floats(self, values: object) -> Tensor:
        return self._put(np.asarray(values, np.float32))

    @torch.no_grad()
    def batch(self, plans: Sequence[ClipPlan]) -> DeviceBatch:
        """Render the clips of one step."""
        frames = plans[0].phi_T.size
        images_FHW, labels_FNHW = self._hearts(plans, frames)
        gamma_F, gain_F, offset_F = (
            column.repeat_interleave(frames)[:, None, None]
            for column in self._floats([plan.look for plan in plans]).unbind(1)
        )
        lit_FHW = images_FHW > 0
        images_FHW = (gain_F * images_FHW**gamma_F + offset_F * lit_FHW).clamp(0.0, 1.0)
        self._corrupt(images_FHW, plans, frames)
        images_BTHW = images_FHW.unflatten(0, (len(plans), frames))
        labels_BTNHW = labels_FNHW.unflatten(0, (len(plans), frames))
        for b, plan in enumerate(plans):
            if plan.negative_HW is not None:
                images_BTHW[b] = self._put(plan.negative_HW)
                labels_BTNHW[b] = 0.0
                labels_BTNHW[b, :, 0] = 1.0
        lv_BTHW = labels_BTNHW[:, :, 1].cpu().numpy()
        presence = [plan.presence(lv_THW) for plan, lv_THW in zip(plans, lv_BTHW, strict=True)]
        known_BN = known_structures(plans, self._patients)
        return DeviceBatch(images_BTHW, labels_BTNHW, self._floats(presence), known_BN)

    def _hearts(self, plans: Sequence[ClipPlan], frames: int) -> tuple[Tensor, Tensor]:
        """Clean images_FHW in [0, 1] and labels_FNHW of all frames, clip after clip."""
        patient_F = self._put(np.repeat([plan.patient for plan in plans], frames))
        phi_F = self._floats([plan.phi_T for plan in plans]).flatten()
        grid_FHW2 = self._grids(plans, frames)
        shown = [
            self._still(still, patient_F, phi_F, grid_FHW2) for still in (0, 1)
        ]  # (image_F1HW, labels_FNHW) of either still
        share_F111 = phi_F.clamp(0.0, 1.0)[:, None, None, None]
        blurred = [_blur(image, DETAIL_SIGMA_PX) for image, _ in shown]
        low = (1 - share_F111) * blurred[0] + share_F111 * blurred[1]
        turn_F111 = share_F111 * (torch.pi / 2)
        detail = turn_F111.cos() * (shown[0][0] - blurred[0])
        detail += turn_F111.sin() * (shown[1][0] - blurred[1])
        labels_FNHW = (1 - share_F111) * shown[0][1] + share_F111 * shown[1][1]
        return ((low + detail)[:, 0] / 255.0).clamp(0.0, 1.0), labels_FNHW

    def _grids(self, plans: Sequence[ClipPlan], frames: int) -> Tensor:
        """Sampling places (column, row) of every frame on the working grid."""
        side = self.side
        axis = torch.arange(side, device=self.device, dtype=torch.float32) - (side - 1) / 2
        across_HW2 = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
        matrix_B22 = self._floats([plan.view.matrix_22 for plan in plans])
        offset_B2 = self._floats([plan.view.offset_2 for plan in plans])
        bumps_B2YX = self._floats([plan.view.bumps_YX2.transpose(2, 0, 1) for plan in plans])
        wide = functional.interpolate(bumps_B2YX, (side, side), mode="bicubic")
        grid_BHW2 = torch.einsum("hwj,bij->bhwi", across_HW2, matrix_B22)
        grid_BHW2 += offset_B2[:, None, None] + wide.permute(0, 2, 3, 1)
        time_T = torch.arange(frames, device=self.device, dtype=torch.float32)
        drift_B2 = self._floats([plan.drift_2 for plan in plans])
        drift_BT2 = time_T[None, :, None] * drift_B2[:, None]
        return (grid_BHW2[:, None] + drift_BT2[:, :, None, None]).flatten(0, 1)

    def _still(
        self, still: int, patient_F: Tensor, phi_F: Tensor, grid_FHW2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One still carried to the contraction of every frame."""
        side = self.side
        coarse_FHW2 = functional.avg_pool2d(grid_FHW2.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        moved = functional.grid_sample(
            self._fields(still, patient_F, phi_F),
            2 * coarse_FHW2 / (side - 1) - 1,
            mode="bicubic",
            padding_mode="border",
            align_corners=True,
        )
        fine = functional.interpolate(moved, scale_factor=2.0, mode="bilinear")
        fine_FHW2 = (2 * (grid_FHW2 + fine.permute(0, 2, 3, 1)) + 1) / side - 1
        image = self._images_PSHW[patient_F, still].float()[:, None]
        # Whole grey levels, as the processor's: what is black stays black.
        image = functional.avg_pool2d(_sample(image, fine_FHW2).round(), 2).round()
        half_FHW2 = functional.avg_pool2d(fine_FHW2.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        structures = self._labels_PSNHW[patient_F, still].float() / 255.0
        structures = _sample(structures, half_FHW2)
        return image, torch.cat([1 - structures.sum(dim=1, keepdim=True), structures], dim=1)

    def _fields(self, still: int, patient_F: Tensor, phi_F: Tensor) -> Tensor:
        """The still's displacement field, linear between the solved contractions, nil on stills."""
        last = len(LEVELS) - 1
        place_F = ((phi_F - LEVELS[0]) / (LEVELS[1] - LEVELS[0])).clamp(0, last - 1e-4)
        low_F = place_F.long()
        share_F111 = (place_F - low_F)[:, None, None, None]
        before = self._fields_PLS2YX[patient_F, low_F, still]
        after = self._fields_PLS2YX[patient_F, low_F + 1, still]
        is_moved_F111 = ((phi_F != 0.0) & (phi_F != 1.0))[:, None, None, None]
        return is_moved_F111 * ((1 - share_F111) * before + share_F111 * after)

    def _corrupt(self, images_FHW: Tensor, plans: Sequence[ClipPlan], frames: int) -> None:
        """Spoil the planned frames in place, all of one kind at once."""
        found: dict[int, list[tuple[int, Corruption]]] = {}
        for b, plan in enumerate(plans):
            for t, bad in plan.bad.items():
                found.setdefault(bad.kind, []).append((b * frames + t, bad))
        for kind, frames_of_kind in found.items():
            index_F = self._put(np.array([index for index, _ in frames_of_kind]))
            values = self._floats([bad.values for _, bad in frames_of_kind])
            seed = frames_of_kind[0][1].seed
            images_FHW[index_F] = _spoil(kind, images_FHW[index_F], values, seed)


def _spoil(kind: int, images_FHW: Tensor, values_F3: Tensor, seed: int) -> Tensor:
    first, second, third = values_F3[:, :, None, None].unbind(1)
    side = images_FHW.shape[-1]
    axis = torch.arange(side, device=images_FHW.device, dtype=torch.float32) / side
    rows, cols = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.atan2(cols - 0.5, rows + 0.05)
    if kind == LOST_CONTACT:
        return torch.where(second * (angle - first) > 0, images_FHW * third, images_FHW)
    if kind == 1:
        return torch.where((angle - first).abs() < second, images_FHW * third, images_FHW)
    if kind == 2:
        haze = first * torch.exp(-rows / second)
        return (images_FHW + haze * (images_FHW > 0)).clamp(0.0, 1.0)
    if kind == 3:
        random = torch.Generator(images_FHW.device).manual_seed(seed)
        uniform = torch.rand(images_FHW.shape, device=images_FHW.device, generator=random)
        rayleigh = 0.8 * (-2 * torch.log1p(-uniform)).sqrt()
        return (images_FHW * (0.3 + rayleigh)).clamp(0.0, 1.0)
    if kind == 5:
        return _blur(images_FHW[:, None], first[:, :, 0])[:, 0]
    return (images_FHW * first).clamp(0.0, 1.0)


def _blur(images_F1HW: Tensor, sigma: Tensor | float) -> Tensor:
    """Gaussian blur, one width a frame (F x 1) or one for all, mirrored at the border."""
    frames, device = images_F1HW.shape[0], images_F1HW.device
    reach = torch.arange(-BLUR_REACH_PX, BLUR_REACH_PX + 1, device=device, dtype=torch.float32)
    sigma_F1 = torch.as_tensor(sigma, device=device, dtype=torch.float32).expand(frames, 1)
    kernel_FK = torch.exp(-0.5 * (reach / sigma_F1) ** 2)
    kernel_FK /= kernel_FK.sum(dim=1, keepdim=True)
    pad = (BLUR_REACH_PX,) * 4
    x_1FHW = functional.pad(images_F1HW, pad, mode="reflect").transpose(0, 1)
    x_1FHW = functional.conv2d(x_1FHW, kernel_FK[:, None, :, None], groups=frames)
    return functional.conv2d(x_1FHW, kernel_FK[:, None, None, :], groups=frames).transpose(0, 1)


def _sample(images_FNHW: Tensor, places_FHW2: Tensor) -> Tensor:
    return functional.grid_sample(images_FNHW, places_FHW2, mode="bilinear", align_corners=False)


def _halved(labels_HWN: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Structures without background on half the side, labels_NHW."""
    half = cv2.resize(labels_HWN[..., 1:], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, np.uint8).transpose(2, 0, 1)
