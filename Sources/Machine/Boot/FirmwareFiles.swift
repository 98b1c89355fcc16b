import Devices
import LinuxSystem

/// Files that the guest sees as they are when it looks: those of the host, and the page
/// of the generation identifier.
///
/// Whoever changes one replaces it by renaming another over it: a guest may look at
/// any time. One that is gone, grew too large or became a pipe leaves the guest with
/// what it had.
struct FirmwareFiles: FirmwareFileSource {
  private let paths: [String: String]
  private let generation: GenerationIdentifier

  init(_ files: [MachineConfiguration.FirmwareFile], generation: GenerationIdentifier) {
    self.generation = generation
    var paths: [String: String] = [:]
    for file in files { paths[file.name] = file.path }
    self.paths = paths
  }

  func contents(ofFirmwareFile name: String) -> [UInt8]? {
    if name == GenerationIdentifier.pageFile { return generation.page }
    // A pipe opened without `nonBlocking` would hold up the machine.
    guard let path = paths[name],
      let file = try? FileDescriptor.open(path, [.nonBlocking, .noTerminal]), file.isRegularFile
    else { return nil }
    // A byte more than may be: the device tells what is too large by it.
    return try? file.read(upTo: FirmwareContents.maximumRereadSize + 1)
  }
}
