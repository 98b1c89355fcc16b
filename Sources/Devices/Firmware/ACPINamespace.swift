/// What DSDT and SSDT say: the devices that do not announce themselves, what they use,
/// how PCI interrupts are wired, and how the machine is switched off.
struct ACPINamespace {
  private let configuration: ACPITables.Configuration

  init(_ configuration: ACPITables.Configuration) { self.configuration = configuration }

  var contents: [UInt8] {
    let bridge = AML.device(
      "PCI0",
      [
        AML.name("_HID", AML.eisaID("PNP0A03")),
        AML.name("_UID", AML.integer(0)),
        AML.name("_CRS", bridgeResources),
        AML.name("_PRT", interruptRouting),
        AML.device("ISA", [AML.name("_ADR", AML.integer(0x0001_0000))] + isaDevices),
      ])
    // S5 is the only state to go to: there are no packages for others.
    let softOff = AML.integer(UInt32(PowerManagement.softOff))
    return AML.scope("\\_SB", processors + [bridge])
      + AML.name("\\_S5", AML.package([softOff, softOff, AML.integer(0), AML.integer(0)]))
  }

  /// ACPI 6.5, 8.4: a device each, tied by _UID to its entry in the MADT.
  private var processors: [[UInt8]] {
    (0..<configuration.processorCount).map { index in
      AML.device(
        "C" + Self.hexadecimal(index),
        [
          AML.name("_HID", AML.string("ACPI0007")),
          AML.name("_UID", AML.integer(UInt32(index))),
        ])
    }
  }

  /// Three digits, as a name's last.
  private static func hexadecimal(_ value: Int) -> String {
    let digits = String(value, radix: 16, uppercase: true)
    return String(repeating: "0", count: max(0, 3 - digits.count)) + digits
  }

  private var bridgeResources: [UInt8] {
    ACPIResource.template([
      ACPIResource.busNumbers(0...0xFF),
      ACPIResource.io(0xCF8, count: 8),
      ACPIResource.ioWindow(0...0xCF7),
      ACPIResource.ioWindow(0xD00...0xFFFF),
      ACPIResource.memoryWindow(0xA_0000...0xB_FFFF),
      ACPIResource.memoryWindow(configuration.pciMemory),
    ])
  }

  /// Every pin of every slot, on the interrupt that its PIRQ is routed to.
  private var interruptRouting: [UInt8] {
    AML.package(
      (1..<32).flatMap { device in
        (0..<4).map { pin in
          let request = ISABridge.interruptRequest(device: device, pin: pin)
          return AML.package([
            AML.integer(UInt32(device) << 16 | 0xFFFF), AML.integer(UInt32(pin)),
            AML.integer(0), AML.integer(UInt32(ISABridge.conventionalRoutes[request])),
          ])
        }
      })
  }

  private var isaDevices: [[UInt8]] {
    func device(_ name: String, _ id: String, _ resources: [[UInt8]]) -> [UInt8] {
      AML.device(
        name,
        [
          AML.name("_HID", AML.eisaID(id)),
          AML.name("_CRS", ACPIResource.template(resources)),
        ])
    }
    let base = configuration.powerManagementBase
    var devices = [
      device(
        "PIC", "PNP0000",
        [
          ACPIResource.io(0x20, count: 2), ACPIResource.io(0xA0, count: 2),
          ACPIResource.io(0x4D0, count: 2), ACPIResource.interrupt(2),
        ]),
      device("TMR", "PNP0100", [ACPIResource.io(0x40, count: 4), ACPIResource.interrupt(0)]),
      device("RTC", "PNP0B00", [ACPIResource.io(0x70, count: 2), ACPIResource.interrupt(8)]),
      device("SPKR", "PNP0800", [ACPIResource.io(0x61, count: 1)]),
      device("FPU", "PNP0C04", [ACPIResource.io(0xF0, count: 1), ACPIResource.interrupt(13)]),
      device(
        "KBD", "PNP0303",
        [
          ACPIResource.io(0x60, count: 1), ACPIResource.io(0x64, count: 1),
          ACPIResource.interrupt(1),
        ]),
      device("MOU", "PNP0F13", [ACPIResource.interrupt(12)]),
      // Ports of the board that belong to no device: POST codes, port 0x92, APM, the
      // power management registers.
      device(
        "BRD", "PNP0C02",
        [
          ACPIResource.io(0x80, count: 1), ACPIResource.io(0x92, count: 1),
          ACPIResource.io(0xB2, count: 2),
          ACPIResource.io(base, count: UInt8(PowerManagement.registerCount)),
        ]),
      AML.device(
        "FWCF",
        [
          AML.name("_HID", AML.string("QEMU0002")),
          AML.name("_STA", AML.integer(0x0B)),
          AML.name("_CRS", ACPIResource.template([ACPIResource.io(0x510, count: 12)])),
        ]),
    ]
    if configuration.hasSerialPort {
      devices.append(
        AML.device(
          "COM1",
          [
            AML.name("_HID", AML.eisaID("PNP0501")),
            AML.name("_UID", AML.integer(1)),
            AML.name(
              "_CRS",
              ACPIResource.template([
                ACPIResource.io(0x3F8, count: 8), ACPIResource.interrupt(4),
              ])),
          ]))
    }
    return devices
  }
}

extension ACPINamespace {
  /// Where in `generationIdentifier` the page's address is to be added: after the
  /// opcodes and the name.
  static let generationAddressOffset = 6

  /// "Virtual Machine Generation ID" (Microsoft, 2012): a device that says where the
  /// identifier lies and is notified when it changed. A table of its own, so that the
  /// address has a known place.
  static var generationIdentifier: [UInt8] {
    let event = PowerManagement.GeneralEvent.generationChanged
    let digits = "0" + String(event, radix: 16, uppercase: true)
    return AML.name("VGIA", AML.wideInteger(0))
      + AML.scope(
        "\\_SB",
        [
          AML.device(
            "VGEN",
            [
              AML.name("_HID", AML.string("CRRL0001")),
              AML.name("_CID", AML.string("VMGENCTR")),
              AML.name("_DDN", AML.string("VM_Gen_Counter")),
              // A package of the address's halves.
              AML.method(
                "ADDR",
                [
                  AML.store(AML.package([AML.integer(0), AML.integer(0)]), AML.local(0)),
                  AML.store(
                    AML.sum(
                      AML.reference("\\VGIA"),
                      AML.integer(UInt32(GenerationIdentifier.offsetInPage))),
                    AML.element(0, of: AML.local(0))),
                  AML.returning(AML.local(0)),
                ]),
            ])
        ])
      // An edge: the status bit is cleared before the method runs.
      + AML.scope(
        "\\_GPE", [AML.method("_E" + digits, [AML.notify("\\_SB.VGEN", 0x80)])])
  }
}
