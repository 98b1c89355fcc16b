import Devices
import LinuxSystem

/// SeaBIOS, the VGA BIOS, or another ROM from a file.
struct FirmwareImage {
  let bytes: [UInt8]

  init(path: String, what: String, remedy: String, limit: Int = 16 << 20) throws(MachineError) {
    do {
      bytes = try Files.read(path, limit: limit)
    } catch {
      throw MachineError(.image, "\(what) \(path) could not be read", remedy: remedy, cause: error)
    }
    guard !bytes.isEmpty else {
      throw MachineError(.image, "\(what) \(path) is empty", remedy: remedy)
    }
  }

  static func seaBIOS(in directory: String) throws(MachineError) -> FirmwareImage {
    try FirmwareImage(
      path: directory + "/bios-256k.bin", what: "the firmware",
      remedy: "install Debian's package seabios", limit: 1 << 20)
  }

  static func uefi(in directory: String) throws(MachineError) -> FirmwareImage {
    let image = try FirmwareImage(
      path: directory + "/OVMF_CODE_4M.fd", what: "the firmware",
      remedy: "install Debian's package ovmf")
    guard image.bytes.count % 4096 == 0 else {
      throw MachineError(
        .image, "the UEFI firmware has \(image.bytes.count) bytes, not whole pages",
        remedy: "install Debian's package ovmf again")
    }
    return image
  }

  /// Variables as they come with `uefi`, in whole blocks of flash.
  static func uefiVariables(in directory: String) throws(MachineError) -> FirmwareImage {
    let image = try FirmwareImage(
      path: directory + "/OVMF_VARS_4M.fd", what: "the template of UEFI's variables",
      remedy: "install Debian's package ovmf", limit: 4 << 20)
    guard image.bytes.count % FlashMemory.blockSize == 0 else {
      throw MachineError(
        .image, "the template of UEFI's variables has \(image.bytes.count) bytes, not whole blocks",
        remedy: "install Debian's package ovmf again")
    }
    return image
  }

  static func vgaBIOS(
    of display: MachineConfiguration.Display, in directory: String
  ) throws(MachineError) -> FirmwareImage {
    try FirmwareImage(
      path: directory + (display == .standard ? "/vgabios-stdvga.bin" : "/vgabios-virtio.bin"),
      what: "the VGA BIOS",
      remedy: "install Debian's package seabios", limit: 1 << 18)
  }

  /// Fills the BIOS segments below 1 MiB as a power-on leaves them: option ROM
  /// space empty, the end of the image up to the top.
  func shadow(into memory: MachineMemory) {
    let start = PhysicalMap.shadowStart
    guard
      let area = memory.bytes(at: start, count: Int(PhysicalMap.shadowEnd - start))
    else { return }
    area.initializeMemory(as: UInt8.self, repeating: 0)
    let room = Int(PhysicalMap.shadowEnd - PhysicalMap.biosSegments)
    let part = bytes.suffix(room)
    // SAFETY: `part` has at most `room` bytes, fewer than the area.
    UnsafeMutableRawBufferPointer(rebasing: area[(area.count - part.count)...])
      .copyBytes(from: part)
  }
}
