include $(sort $(wildcard $(BR2_EXTERNAL_USBIP_PI_PATH)/package/*/*.mk))
