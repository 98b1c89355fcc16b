import ArgumentParser
import Machine
import QMP

extension MachineConfiguration {
  /// The configuration of a clone: this one, which is its template's, with everything that
  /// cannot be two machines' at a time from the request.
  func clone(_ request: CloneRequest) throws -> MachineConfiguration {
    var clone = self
    clone.name = request.name
    guard let uuid = request.uuid.map({ MachineUUID($0) }) ?? .derived(from: request.name) else {
      throw refused("'\(request.uuid ?? "")' is no UUID")
    }
    clone.uuid = uuid
    clone.disks = try clonedDisks(request)
    clone.networks = try clonedNetworks(request)
    clone.channels = try clonedChannels(request)
    clone.firmwareFiles = try clonedFirmwareFiles(request)
    clone.serial = try request.serial.map { try SerialArgument(parsing: $0).serial } ?? .none
    clone.audio.wave = nil
    if (vsock == nil) != (request.vsock == nil) {
      throw refused(vsock == nil ? "the template has no vsock" : "it needs a vsock of its own")
    }
    clone.vsock = try request.vsock.map { try VsockArgument(parsing: $0).vsock }
    if case .uefi(let variables) = boot {
      guard (variables == nil) == (request.nvram == nil) else {
        throw refused("it has UEFI's variables in a file if its template has")
      }
      clone.boot = .uefi(variables: request.nvram)
    } else if request.nvram != nil {
      throw refused("the template has no UEFI whose variables could be kept")
    }
    return clone
  }

  private func refused(_ problem: String) -> MachineError {
    MachineError(
      .configuration, "no clone of '\(name)' can be like that: \(problem)")
  }

  private func clonedDisks(_ request: CloneRequest) throws -> [Disk] {
    let given = try request.disks.map { try DiskArgument(parsing: $0).disk }
    guard given.count == disks.count else {
      throw refused("its template has \(disks.count) disks, for it there are \(given.count)")
    }
    for (disk, original) in zip(given, disks)
    where disk.bus != original.bus || disk.queues != original.queues {
      throw refused("disk \(disk.path) has another bus or number of queues")
    }
    return given
  }

  private func clonedNetworks(_ request: CloneRequest) throws -> [Network] {
    var given = try request.networks.map { try NetworkArgument(parsing: $0).network }
    if given.isEmpty {
      given = networks
      for (index, network) in networks.enumerated() {
        switch network.backend {
        case .none, .user: given[index].address = nil
        case .tap, .socket:
          throw refused("card net\(index) of its template is on a network that only one can use")
        }
      }
    }
    guard given.map(\.queues) == networks.map(\.queues) else {
      throw refused("its template has other network cards")
    }
    return given
  }

  private func clonedChannels(_ request: CloneRequest) throws -> [Channel] {
    let given = try request.channels.map { try ChannelArgument(parsing: $0).channel }
    guard given.map(\.name) == channels.map(\.name) else {
      let names = channels.map(\.name).joined(separator: ", ")
      throw refused(
        names.isEmpty
          ? "its template has no channels" : "its template has just the channels \(names)")
    }
    return given
  }

  /// A guest knows the files' numbers, so there are the same ones.
  private func clonedFirmwareFiles(_ request: CloneRequest) throws -> [FirmwareFile] {
    var files = firmwareFiles
    for argument in request.firmwareFiles {
      let file = try FirmwareFileArgument(parsing: argument).load()
      guard let index = files.firstIndex(where: { $0.name == file.name }) else {
        throw refused("the template has no fw_cfg file '\(file.name)'")
      }
      files[index] = file
    }
    return files
  }
}
