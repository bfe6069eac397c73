"""The DICOM attributes that are read, by keyword."""

from enum import IntEnum


class Tag(IntEnum):
    """Group and element numbers; each name is the attribute's keyword in PS3.6."""

    MediaStorageSOPClassUID = 0x00020002
    TransferSyntaxUID = 0x00020010

    SOPClassUID = 0x00080016
    SOPInstanceUID = 0x00080018
    Modality = 0x00080060
    Manufacturer = 0x00080070
    CodeValue = 0x00080100
    CodingSchemeDesignator = 0x00080102
    StageName = 0x00082120
    ViewName = 0x00082127
    RecommendedDisplayFrameRate = 0x00082144

    CineRate = 0x00180040
    EffectiveDuration = 0x00180072
    FrameTime = 0x00181063
    FrameTimeVector = 0x00181065
    HeartRate = 0x00181088
    ImagerPixelSpacing = 0x00181164
    ActualFrameDuration = 0x00181242
    NominalScannedPixelSpacing = 0x00182010
    RWaveTimeVector = 0x00186060

    SequenceOfUltrasoundRegions = 0x00186011
    RegionSpatialFormat = 0x00186012
    RegionDataType = 0x00186014
    RegionLocationMinX0 = 0x00186018
    RegionLocationMinY0 = 0x0018601A
    RegionLocationMaxX1 = 0x0018601C
    RegionLocationMaxY1 = 0x0018601E
    PhysicalUnitsXDirection = 0x00186024
    PhysicalUnitsYDirection = 0x00186026
    PhysicalDeltaX = 0x0018602C
    PhysicalDeltaY = 0x0018602E

    StudyInstanceUID = 0x0020000D

    SamplesPerPixel = 0x00280002
    PhotometricInterpretation = 0x00280004
    PlanarConfiguration = 0x00280006
    NumberOfFrames = 0x00280008
    Rows = 0x00280010
    Columns = 0x00280011
    UltrasoundColorDataPresent = 0x00280014
    PixelSpacing = 0x00280030
    PixelAspectRatio = 0x00280034
    BitsAllocated = 0x00280100
    BitsStored = 0x00280101
    HighBit = 0x00280102
    PixelRepresentation = 0x00280103
    WindowCenter = 0x00281050
    WindowWidth = 0x00281051
    RescaleIntercept = 0x00281052
    RescaleSlope = 0x00281053
    VOILUTFunction = 0x00281056
    RedPaletteColorLookupTableDescriptor = 0x00281101
    GreenPaletteColorLookupTableDescriptor = 0x00281102
    BluePaletteColorLookupTableDescriptor = 0x00281103
    RedPaletteColorLookupTableData = 0x00281201
    GreenPaletteColorLookupTableData = 0x00281202
    BluePaletteColorLookupTableData = 0x00281203
    SegmentedRedPaletteColorLookupTableData = 0x00281221
    SegmentedGreenPaletteColorLookupTableData = 0x00281222
    SegmentedBluePaletteColorLookupTableData = 0x00281223
    ModalityLUTSequence = 0x00283000
    LUTDescriptor = 0x00283002
    LUTData = 0x00283006
    VOILUTSequence = 0x00283010
    FrameVOILUTSequence = 0x00289132
    PixelValueTransformationSequence = 0x00289145

    ViewCodeSequence = 0x00540220

    PresentationLUTShape = 0x20500020

    SharedFunctionalGroupsSequence = 0x52009229
    PerFrameFunctionalGroupsSequence = 0x52009230

    ExtendedOffsetTable = 0x7FE00001
    ExtendedOffsetTableLengths = 0x7FE00002


WANTED = frozenset(int(tag) for tag in Tag)
