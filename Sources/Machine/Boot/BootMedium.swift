/// What the first instruction comes from.
struct BootMedium {
  /// Mapped below 4 GiB and, if it is firmware, into the BIOS segments.
  private(set) var rom: FirmwareImage?
  /// Behind the flash chip that lies below UEFI's own.
  private(set) var variables: VariableStore?
  /// Entered at once, without firmware.
  private(set) var kernel: KernelLoader?
  /// Started by `rom`.
  private(set) var firmwareKernel: FirmwareKernel?

  init(_ configuration: MachineConfiguration) throws(MachineError) {
    switch configuration.boot {
    case .firmware:
      rom = try FirmwareImage.seaBIOS(in: configuration.firmwareDirectory)
    case .uefi(let path):
      rom = try FirmwareImage.uefi(in: configuration.uefiDirectory)
      variables = try VariableStore(
        path: path, template: FirmwareImage.uefiVariables(in: configuration.uefiDirectory))
    case .kernel(let path, let ramDisk, let commandLine, let underFirmware):
      let files = try KernelFiles(kernel: path, ramDisk: ramDisk, commandLine: commandLine)
      if !underFirmware, let start = files.image.start {
        kernel = KernelLoader(files, start: start)
      } else {
        firmwareKernel = try FirmwareKernel(files)
        rom = try FirmwareImage.seaBIOS(in: configuration.firmwareDirectory)
      }
    case .rom(let path):
      rom = try FirmwareImage(
        path: path, what: "the ROM", remedy: "give an image of at most 16 MiB")
    }
  }

  /// The same for another machine, with UEFI's variables in memory of its own.
  func forAnother() throws(MachineError) -> BootMedium {
    var another = self
    another.variables = try variables.map { store throws(MachineError) in
      try VariableStore(like: store)
    }
    return another
  }
}
