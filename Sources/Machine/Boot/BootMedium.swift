/// What the first instruction comes from.
struct BootMedium {
  /// Mapped below 4 GiB and, if it is firmware, into the BIOS segments.
  let rom: FirmwareImage?
  /// Behind the flash chip that lies below UEFI's own.
  let variables: VariableStore?
  let kernel: KernelLoader?

  init(_ configuration: MachineConfiguration) throws(MachineError) {
    switch configuration.boot {
    case .firmware:
      rom = try FirmwareImage.seaBIOS(in: configuration.firmwareDirectory)
      kernel = nil
      variables = nil
    case .uefi(let path):
      rom = try FirmwareImage.uefi(in: configuration.uefiDirectory)
      kernel = nil
      variables = try VariableStore(
        path: path, template: FirmwareImage.uefiVariables(in: configuration.uefiDirectory))
    case .kernel(let path, let ramDisk, let commandLine):
      rom = nil
      kernel = try KernelLoader(kernel: path, ramDisk: ramDisk, commandLine: commandLine)
      variables = nil
    case .rom(let path):
      rom = try FirmwareImage(
        path: path, what: "the ROM", remedy: "give an image of at most 16 MiB")
      kernel = nil
      variables = nil
    }
  }
}
