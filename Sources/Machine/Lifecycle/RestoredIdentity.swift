import Devices

/// Which machine goes on from a saved state.
public enum RestoredIdentity: Hashable, Sendable {
  /// The one that was saved, which goes on nowhere else.
  case same
  /// Another one, beside whatever else goes on from there: with the name, UUID, addresses
  /// and firmware files of its configuration, and a generation identifier of its own, of
  /// which its guest is told. Its network cables are pulled out until somebody plugs them
  /// in, as the guest would go on talking as the other one.
  case another
  /// The same with its network cables plugged in.
  case anotherOnline
}

extension Board {
  /// Device lock held, all else restored; guest code has not run.
  func becomeAnother(_ identity: RestoredIdentity) {
    guard identity != .same else { return }
    for (index, card) in virtio.networks.enumerated() {
      card.setLink(identity == .anotherOnline)
      card.changeAddress(to: configuration.address(ofNetwork: index).bytes)
    }
    smbios.renew(in: memory, anchorsIn: PhysicalMap.smbiosAnchors)
    changeGeneration(to: .random())
  }
}

extension MachineConfiguration {
  /// The address of a network card.
  func address(ofNetwork index: Int) -> MACAddress {
    networks[index].address ?? .derived(from: uuid, card: index)
  }
}

extension BoardArchive {
  /// Contents of files that the configuration gives are as it says.
  mutating func forgetFirmwareFiles(of configuration: MachineConfiguration) throws {
    guard var state: FirmwareConfiguration.State = try state("fw-cfg") else { return }
    for file in configuration.firmwareFiles { state.written[file.name] = nil }
    replace("fw-cfg", with: state)
  }
}
